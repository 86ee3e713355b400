"""Names and numbers in messages. Nothing here imports torch: the command line answers before it is loaded."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """Return the valid name closest to `name`, or None where none is close."""
    by_lower = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None


def counted(number: int, noun: str) -> str:
    """Return a number with what it counts: "1 epoch", "2 epochs"."""
    return f"{number} {noun}" + "s" * (number != 1)


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return the end of an error's sentence: the nearest name, or else the valid ones."""
    choices = sorted(choices)
    close = nearest(name, choices)
    if close is not None:
        return f"; did you mean '{close}'?"
    return f"; valid names: {', '.join(choices)}" if choices else ""
