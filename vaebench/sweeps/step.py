"""What one job does, before it has a number."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One command of a benchmark.

    Attributes:
        overrides: Its words.
        verb: "train", "sample", "evaluate" or "report".
        needs: Places, in the list of all steps, of those that come before; it works in the run of the first.
        results: Files that it leaves, counted from the run directory.
    """

    overrides: tuple[str, ...]
    verb: str = "train"
    needs: tuple[int, ...] = ()
    results: tuple[str, ...] = ()
