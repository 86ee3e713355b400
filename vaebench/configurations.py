"""The folders of configurations, read as files: which groups there are, and their options. Needs neither Hydra nor torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def options(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Return the options of every group, nested groups as `model/network`."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        for file in folder.rglob("*.yaml"):
            group = file.parent.relative_to(folder).as_posix()
            if group != "." and not group.startswith("hydra"):
                found.setdefault(group, set()).add(file.stem)
    return {group: sorted(names) for group, names in sorted(found.items())}
