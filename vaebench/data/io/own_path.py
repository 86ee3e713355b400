"""Where a user's own data lie, and how much memory they may take."""

from __future__ import annotations

from pathlib import Path

from vaebench.data.io.download import data_root


def own_path(path: str | None, root: str | None, example: str) -> Path:
    """Return the path of a user's own data.

    Args:
        path: As given in `dataset.path`.
        root: The folder from which a relative `path` counts; the working directory by default.
        example: What could stand there, for the message.

    Raises:
        ValueError: No path is given, or nothing is there.
    """
    if path is None or not str(path):
        raise ValueError(f"expected dataset.path to say where the data are, for example {example}, got nothing")
    found = Path(path).expanduser()
    if root is not None:
        found = data_root(root) / found
    if not found.exists():
        raise ValueError(f"expected dataset.path to name existing data, got '{found}', which is not there")
    return found


def memory_limit(memory_gib: float) -> float:
    """Return the limit in bytes.

    Raises:
        ValueError: It is not a number, or negative.
    """
    if isinstance(memory_gib, bool) or not isinstance(memory_gib, (int, float)) or not memory_gib >= 0:
        raise ValueError(f"expected dataset.memory_gib to be a number from 0, got {memory_gib!r}")
    return memory_gib * 2**30
