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


def check_range(
    name: str,
    value: float | None,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    whole: bool = False,
    or_null: bool = False,
) -> None:
    """Refuse a setting outside its range. Not-a-number is outside every range.

    Args:
        name: The setting, as the sentence begins.
        value: What was given.
        at_least: Lower bound that is allowed itself.
        above: Lower bound that is not.
        at_most: Upper bound that is allowed itself.
        below: Upper bound that is not; infinity asks for a finite number.
        whole: Whether it must be a whole number.
        or_null: Whether None is allowed.

    Raises:
        ValueError: what was expected, and what came.
    """
    if value is None and or_null:
        return
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    inside = (
        is_number
        and value is not None
        and value == value
        and (at_least is None or value >= at_least)
        and (above is None or value > above)
        and (at_most is None or value <= at_most)
        and (below is None or value < below)
        and (not whole or value == int(value))
    )
    if inside:
        return
    bounds = [
        f"{words} {bound:g}"
        for words, bound in (("at least", at_least), ("above", above), ("at most", at_most), ("below", below))
        if bound is not None and abs(bound) != float("inf")
    ]
    if below == float("inf"):
        bounds.append("finite")
    kind = ["a whole number"] if whole and value is not None else []
    got = "null" if value is None else value
    expected = " and ".join([*kind, *bounds] if not kind or not bounds else [f"{kind[0]} of {bounds[0]}", *bounds[1:]])
    raise ValueError(f"{name} must be {expected}{', or null' if or_null else ''}; got {got}")
