"""Folders of configurations: their places, groups and options.

Files are read as plain YAML, without Hydra or torch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ENVIRONMENT = "VAEBENCH_CONF"
MAX_DEPTH = 10  # of configurations that extend one another
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is eight times as fast


def conf_dir() -> Path:
    """Return the folder of built-in configurations: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def user_folders() -> list[Path]:
    """Return the folders that the environment variable names, in the order of search.

    Raises:
        ValueError: one of them does not exist.
    """
    found = [Path(text).absolute() for text in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if text]
    for folder in found:
        if not folder.is_dir():
            raise ValueError(f"{ENVIRONMENT}: there is no folder '{folder}'")
    return found


def folders() -> list[Path]:
    """Return all folders of configurations, in the order of search."""
    return [*user_folders(), conf_dir()]


def options(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Return the options of every group, nested groups as `model/network`."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        for file in folder.rglob("*.yaml"):
            group = file.parent.relative_to(folder).as_posix()
            if group != "." and not group.startswith("hydra"):
                found.setdefault(group, set()).add(file.stem)
    return {group: sorted(names) for group, names in sorted(found.items())}


def load(name: str, folders: Sequence[Path]) -> dict[str, Any]:
    """Return a configuration as it stands in the first folder that holds it; {} if there is none or it is broken."""
    for folder in folders:
        file = folder / f"{name}.yaml"
        if file.is_file():
            try:
                content = yaml.load(file.read_text(encoding="utf-8"), LOADER)
            except (yaml.YAMLError, UnicodeDecodeError):
                return {}
            return content if isinstance(content, dict) else {}
    return {}


def defaults(verb: str, folders: Sequence[Path]) -> dict[str, Any]:
    """Return the groups that a verb chooses from, with its default choice: a name, a list of names, or None."""
    entries = [entry for name in (verb, "base") for entry in load(name, folders).get("defaults") or []]
    return {
        group: choice
        for entry in entries
        if isinstance(entry, dict)
        for group, choice in entry.items()
        if not group.startswith("override ")
    }


def required_keys(verb: str, folders: Sequence[Path]) -> list[str]:
    """Return the keys at the root of a verb's configuration that are always there.

    The kind of sweep is none of them: a stored run says nothing of the sweep that it was a job of.
    """
    chosen = defaults(verb, folders)
    return [key for key in keys(verb, folders) if isinstance(chosen.get(key, ""), str) and key != "sweep"]


def settings(verb: str, folders: Sequence[Path]) -> list[str]:
    """Return every key of a verb's configuration with its default choices, dotted."""
    found = keys(verb, folders)
    for group, choice in defaults(verb, folders).items():
        for name in choice if isinstance(choice, list) else [choice] if choice else []:
            prefix = f"{group}.{name}" if isinstance(choice, list) else group
            found += [f"{prefix}.{key}" for key in _settings(group, name, folders)]
    return list(dict.fromkeys(found))


def _settings(group: str, name: str, folders: Sequence[Path], depth: int = 0) -> list[str]:
    content = load(f"{group}/{name}", folders)
    found = []
    for entry in content.pop("defaults", None) or [] if depth < MAX_DEPTH else []:
        if isinstance(entry, str) and entry != "_self_":
            found += _settings(group, entry, folders, depth + 1)
        elif isinstance(entry, dict):
            for part, choice in entry.items():
                if isinstance(choice, str) and not part.startswith(("override", "/")):
                    place, _, package = part.partition("@")
                    inner = _settings(f"{group}/{place}", choice, folders, depth + 1)
                    found += [package or place, *(f"{package or place}.{key}" for key in inner)]
    return found + [key for key in content if not key.startswith("_")]


def keys(verb: str, folders: Sequence[Path]) -> list[str]:
    """Return the keys that stand at the root of a verb's configuration."""
    roots = {key for name in (verb, "base") for key in load(name, folders)} - {"defaults", "hydra"}
    return sorted(roots | set(defaults(verb, folders)))
