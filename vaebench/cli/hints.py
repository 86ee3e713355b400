"""Suggestions for a misspelt name: settings by their last name, in the field's other words, and packages to install."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vaebench.factory.configurations import load, options, settings
from vaebench.messages import did_you_mean, nearest, same_meaning

PACKAGES = {  # options of Hydra's groups and the packages that bring them
    "hydra/launcher": {
        "submitit_slurm": "hydra-submitit-launcher",
        "submitit_local": "hydra-submitit-launcher",
        "joblib": "hydra-joblib-launcher",
        "ray": "hydra-ray-launcher",
        "rq": "hydra-rq-launcher",
    },
    "hydra/sweeper": {
        "optuna": "hydra-optuna-sweeper",
        "ax": "hydra-ax-sweeper",
        "nevergrad": "hydra-nevergrad-sweeper",
    },
}


def package_of(group: str, name: str) -> str | None:
    """Return the package that an option of Hydra's own groups comes with, or None where none is known."""
    return PACKAGES.get(group, {}).get(name)


def for_key(key: str, siblings: Sequence[str], everywhere: Sequence[str], folders: Sequence[Path]) -> str:
    """Return the end of a sentence about a key that does not exist.

    Args:
        key: The dotted key.
        siblings: Keys of the node in which it was looked for.
        everywhere: Every key of the configuration.
        folders: The folders with configurations.
    """
    others = [other for other in everywhere if other not in siblings]
    same = same_meaning(key, siblings) or same_meaning(key, others)
    of_others = options_with(key, folders)
    if same is None and of_others:
        return of_others
    found = same or nearest(key, siblings) or nearest(key, others, cutoff=0.8)
    if found and found.replace(".", "/") in options(folders) and any(k.startswith(f"{found}.") for k in everywhere):
        found = found.replace(".", "/")  # a choice, not a value
    return f"; did you mean '{found}'?" if found else did_you_mean(key, siblings)


def for_flag(flag: str, value: str | None, flags: Sequence[str], verb: str, folders: Sequence[Path]) -> str:
    """Return the end of a sentence about a flag that does not exist: other programs have flags for what are keys here.

    Args:
        flag: As it was typed, with its dashes.
        value: What followed it.
        flags: Those that exist.
        verb: The verb.
        folders: The folders with configurations.
    """
    name = flag.lstrip("-").replace("-", "_")
    known = settings(verb, folders)
    key = same_meaning(name, known)
    if key is None and nearest(flag, flags, cutoff=0.75) is None:
        key = nearest(name, known, cutoff=0.75)
    if key is None:
        return did_you_mean(flag, flags)
    return f"; settings have no dashes: {key}={value or 'VALUE'}"


def options_with(key: str, folders: Sequence[Path]) -> str:
    """Return the end of a sentence that names the options of a group that have a setting, or ""."""
    group, _, name = key.partition(".")
    having = [option for option in options(folders).get(group, []) if name in load(f"{group}/{option}", folders)]
    return f"; it is a setting of {' or '.join(f'{group}={option}' for option in having[:3])}" if having else ""


def leaves(tree: Any, prefix: str = "") -> Iterator[str]:
    """Yield every key of a configuration, nodes included, except Hydra's own."""
    if hasattr(tree, "items_ex"):  # an OmegaConf container, read without resolving it
        tree = dict(tree.items_ex(resolve=False))
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            if not prefix and name == "hydra":
                continue
            yield f"{prefix}{name}"
            yield from leaves(value, f"{prefix}{name}.")
