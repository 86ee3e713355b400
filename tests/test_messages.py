"""Names and numbers in messages."""

import pytest

from vaebench.messages import counted


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 training steps"), (1, "1 training step"), (2, "2 training steps")]
)
def test_one_is_singular(number, words):
    assert counted(number, "training step") == words
