from __future__ import annotations

import math

import pytest

from vaebench.report.numbers import short, with_error


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (-92.41234, 0.5312, "-92.41 ± 0.53"),
        (12345.6, 789.0, "12346 ± 789"),
        (0.0123456, 0.000123, "0.01235 ± 0.00012"),
        (-5.55, 0.0996, "-5.550 ± 0.100"),
        (7.0, 0.0, "7 ± 0"),
        (7.0, 0.5, "7.00 ± 0.50"),
        (10.0, 0.02, "10 ± 0.02"),
        (10.0, 1e-8, "10 ± 0"),
        (0.0, 1e-8, "0 ± 1e-08"),
        (0.5, 0.0, "0.5 ± 0"),
        (500.000000000041, 2e-13, "500 ± 0"),
        (0.123456, None, "0.1235"),
        (3.0, None, "3"),
        (math.nan, 1.0, "nan"),
        (-math.inf, None, "-inf"),
    ],
)
def test_no_more_digits_than_the_error_allows(value, error, text):
    assert with_error(value, error) == text


def test_plain():
    assert short(1e20) == "1e+20"
    assert short(0) == "0"
