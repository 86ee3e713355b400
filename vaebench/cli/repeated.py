"""`vaebench train --config-dir RUN --config-name config`: a new run with the stored configuration of another."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from vaebench.cli.errors import CommandError
from vaebench.factory.configurations import load
from vaebench.runs.run import Run

CHOICES = "${hydra:runtime.choices.%s}"


def is_stored(folder: str | None, name: str | None) -> bool:
    """Return whether a primary configuration is the one that a run stored, resolved and without a list of defaults."""
    if folder is None or name is None or name.removesuffix(".yaml") != Run(folder).config.stem:
        return False
    content = load(Run(folder).config.stem, [Path(folder)])
    return "defaults" not in content and any(isinstance(node, dict) and "_target_" in node for node in content.values())


def as_primary(folder: str, verb: str, folders: Sequence[Path]) -> tempfile.TemporaryDirectory[str]:
    """Write what a run stored as a primary configuration of `train`, into a folder that vanishes with the result.

    Raises:
        CommandError: another verb asks for it.
        ValueError: the file is damaged, or asks for what a stored configuration may not.
    """
    if verb != "train":
        raise CommandError(f"--config-name: '{Run(folder).config}' is for vaebench train; name the run: run={folder}")
    from vaebench.factory.stored import load_config

    stored, primary = load_config(Run(folder)), load(verb, folders)
    kept = [entry for entry in primary["defaults"] if not isinstance(entry, dict) or "override" in next(iter(entry))]
    content = {**primary, "defaults": kept, **stored}
    place = str(content["hydra"]["run"]["dir"])
    for group in ("model", "dataset"):
        place = place.replace(CHOICES % group, _name(stored.get(group)))
    content["hydra"] = {**content["hydra"], "run": {"dir": place}}
    written = tempfile.TemporaryDirectory(prefix="vaebench-")
    text = yaml.safe_dump(content, sort_keys=False)
    (Path(written.name) / Run(folder).config.name).write_text(text, encoding="utf-8")
    return written


def _name(node: Any) -> str:
    """The option that a part of a configuration came from, as far as its class tells."""
    target = node.get("_target_") if isinstance(node, Mapping) else None
    return str(target).rpartition(".")[0].rpartition(".")[2] or "unknown"
