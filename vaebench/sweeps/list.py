"""Experiments one by one, from a file."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vaebench.sweeps.base import BaseSweep
from vaebench.sweeps.grid import GridSweep

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


class ListSweep(BaseSweep):
    """One job for each line of a file, beside the words of the command line, each combination of these.

    Args: those of `BaseSweep`, and
        path: A text file: a line holds the overrides of one job, `model=vae trainer.learning_rate=1e-3`; what follows
            a # is a comment.

    Raises:
        ValueError: there is no such file, it holds no job, or a line has a word without `=`.
    """

    def __init__(
        self, path: str | None = None, wait: bool = True, dry_run: bool = False, confirm_above: int = 100
    ) -> None:
        super().__init__(wait, dry_run, confirm_above)
        if path is None:
            raise ValueError("path: a file with one job in each line is needed; set sweep.path=")
        self.path = path
        self._lines = _read(Path(os.path.expanduser(path)))

    def jobs(self, overrides: Sequence[Override]) -> list[list[str]]:
        """Return each line's words after those of each combination on the command line."""
        given = GridSweep().jobs(overrides)
        return [[*common, *line] for line in self._lines for common in given]


def _read(path: Path) -> list[list[str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ValueError(f"path: cannot read '{path}': {reason}; expected one job in each line") from None
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise ValueError(f"path: line {number} of '{path}': {error}") from None
        wrong = [word for word in words if "=" not in word and not word.startswith("~")]
        if wrong:
            raise ValueError(f"path: line {number} of '{path}': '{wrong[0]}' is not of the form key=value")
        if words:
            found.append(words)
    if not found:
        raise ValueError(f"path: '{path}' holds no job; expected one in each line")
    return found
