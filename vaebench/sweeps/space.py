"""Hydra's grammar of several values (choice, range, interval, tag) as a search space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


@dataclass(frozen=True)
class Axis:
    """The values of one key.

    Attributes:
        key: The key.
        choices: Its values as they stand on the command line, or None for numbers in an interval.
        low: Smallest number.
        high: Largest number.
        is_whole: Whether the numbers are whole.
        is_log: Whether they are spread evenly in their logarithm.
    """

    key: str
    choices: tuple[str, ...] | None = None
    low: float = 0.0
    high: float = 1.0
    is_whole: bool = False
    is_log: bool = False

    def __str__(self) -> str:
        """As a dry run shows it."""
        if self.choices is not None:
            return f"{self.key}: one of {', '.join(self.choices)}"
        kind = "whole numbers" if self.is_whole else "numbers"
        return f"{self.key}: {kind} from {self.low:g} to {self.high:g}{', even in the logarithm' * self.is_log}"


def axis(override: Override) -> Axis:
    """Return the values that a word gives to its key.

    Raises:
        ValueError: an interval is empty, or a logarithm meets a number that is not positive.
    """
    from hydra.core.override_parser.types import IntervalSweep, RangeSweep

    key, value = override.get_key_element(), override.value()
    tags: set[str] = getattr(value, "tags", set())
    if isinstance(value, IntervalSweep):
        low, high = float(value.start or 0.0), float(value.end or 0.0)
        is_whole = isinstance(value.start, int) and isinstance(value.end, int)
        if not low < high:
            raise ValueError(f"'{override.input_line}': expected an interval from a smaller to a larger number")
        if "log" in tags and low <= 0:
            raise ValueError(f"'{override.input_line}': a logarithmic interval needs numbers above 0")
        return Axis(key, None, low, high, is_whole, "log" in tags)
    values = tuple(override.sweep_string_iterator())
    if not values:
        raise ValueError(f"'{override.input_line}' matches nothing")
    numbers = _whole_numbers(values)
    if isinstance(value, RangeSweep) and numbers is not None and abs(value.step) == 1:
        return Axis(key, None, min(numbers), max(numbers), is_whole=True, is_log="log" in tags)
    return Axis(key, values)


def word(axis: Axis, value: Any) -> str:
    """Return the override that sets an axis to a value."""
    return f"{axis.key}={value}" if axis.choices is not None or axis.is_whole else f"{axis.key}={float(value):.10g}"


def _whole_numbers(values: tuple[str, ...]) -> list[int] | None:
    try:
        return [int(value) for value in values]
    except ValueError:
        return None
