"""A stranger's JSON and YAML as plain values: text without control characters, numbers that can be computed with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vaebench.messages import printable

MAX_TEXT = 1_000  # characters; longer text loses its middle
MAX_NUMBER = 1e100  # so that sums of squares do not overflow
MAX_BITS = 256


def plain_value(value: object) -> Any:
    """Return a tree of dictionaries, lists, text, numbers and None; whatever else there is becomes text."""
    if isinstance(value, Mapping):
        return {text(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(item) for item in value]
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= MAX_BITS else f"a whole number of {value.bit_length()} bits"
    return text(value)


def text(value: object, most: int = MAX_TEXT) -> str:
    """Return text for one line: what a terminal would obey is replaced, the middle of long text left out."""
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        return f"a whole number of {value.bit_length()} bits"
    line = printable(value)
    half = (most - 1) // 2
    return line if len(line) <= most else f"{line[:half]}…{line[-half:]}"


def path_text(path: Path) -> str:
    """Return a path as text; it may hold bytes that are not text."""
    return text(path)


def number(value: object) -> float | None:
    """Return a finite number of ordinary size, or None."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        found = float(value)
    except OverflowError:  # JSON integers can be of any size
        return None
    return found if math.isfinite(found) and abs(found) < MAX_NUMBER else None


def count(value: object) -> int | None:
    """Return a whole number from 0, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None
