"""Numbers as a reader wants them: no more digits than their error allows."""

from __future__ import annotations

import math


def with_error(value: float, error: float | None) -> str:
    """Write a value and its error, the error with two significant digits.

    >>> with_error(-92.41234, 0.5312)
    '-92.41 ± 0.53'
    >>> with_error(7.0, 0.0)
    '7 ± 0'
    >>> with_error(0.123456, None)
    '0.1235'
    """
    if not math.isfinite(value):
        return str(value)
    if error is None or not math.isfinite(error):
        return short(value)
    if max(abs(value), error) >= 1e12:
        return f"{value:.4g} ± {error:.2g}"
    if value == round(value) and error < 0.1:  # a count whose error is below one item
        return f"{value:.0f} ± {error if error > 1e-4 * abs(value) else 0:.1g}"
    if error <= 1e-12 * abs(value):  # what double precision leaves of 0
        return f"{short(value)} ± 0"
    digits = min(max(0, 1 - math.floor(math.log10(error))), 12)
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def short(value: float) -> str:
    """Write a value with four significant digits, an integer with all of them.

    >>> short(1437.0), short(0.00012345), short(-512.34567)
    ('1437', '0.0001234', '-512.3')
    """
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:.4g}"
