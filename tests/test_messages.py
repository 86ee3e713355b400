"""Names and numbers in messages."""

import re

import pytest

from vaebench.messages import check_range, counted


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 training steps"), (1, "1 training step"), (2, "2 training steps")]
)
def test_one_is_singular(number, words):
    assert counted(number, "training step") == words


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"value": 0, "at_least": 1}, "x must be at least 1; got 0"),
        ({"value": 1.5, "at_least": 1, "whole": True}, "x must be a whole number of at least 1; got 1.5"),
        ({"value": 1.0, "at_least": 0, "below": 1}, "x must be at least 0 and below 1; got 1.0"),
        ({"value": float("nan"), "above": 0}, "x must be above 0; got nan"),
        ({"value": float("inf"), "above": 0, "below": float("inf")}, "x must be above 0 and finite; got inf"),
        ({"value": 0, "above": 0, "or_null": True}, "x must be above 0, or null; got 0"),
        ({"value": None, "above": 0}, "x must be above 0; got null"),
        ({"value": True, "at_least": 0}, "x must be at least 0; got True"),
    ],
)
def test_a_value_outside_its_range_is_refused_in_one_phrasing(arguments, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        check_range("x", **arguments)


def test_a_value_inside_its_range_passes():
    check_range("x", 1, at_least=1, whole=True)
    check_range("x", None, above=0, or_null=True)
    check_range("x", 0.5, above=0, below=1)
