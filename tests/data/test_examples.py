from __future__ import annotations

import pytest
import torch

from vaebench.data.examples import Examples, fill_parts, hold_out, shuffled


def pool(n: int) -> Examples:
    return Examples(torch.arange(n)[:, None], torch.arange(n))


def test_the_shuffle_is_the_same_everywhere():
    assert shuffled(10).tolist() == [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]
    assert shuffled(0).tolist() == []


def test_parts_are_disjoint_and_cover_the_pool():
    parts = hold_out(pool(50), num_validation=7, num_test=11)
    assert [len(part) for part in parts] == [32, 7, 11]
    assert sorted(torch.cat([part.y for part in parts]).tolist()) == list(range(50))
    assert all(torch.equal(part.x[:, 0], part.y) for part in parts)
    train, validation = hold_out(pool(50), num_validation=7)
    assert (len(train), len(validation)) == (43, 7)


def test_parts_that_the_data_bring_are_kept():
    given = {"train": pool(10), "test": Examples(torch.full((4, 1), 99), torch.full((4,), 99))}
    train, validation, test = fill_parts(given, validation_fraction=0.2, test_fraction=0.5, where="here")
    assert (len(train), len(validation), len(test)) == (8, 2, 4)
    assert test.y.tolist() == [99] * 4


def test_few_examples_still_make_three_parts():
    parts = fill_parts({"train": pool(3)}, validation_fraction=0.1, test_fraction=0.1, where="here")
    assert [len(part) for part in parts] == [1, 1, 1]
    parts = fill_parts({"train": pool(3)}, validation_fraction=0, test_fraction=0, where="here")
    assert [len(part) for part in parts] == [3, 0, 0]


@pytest.mark.parametrize(
    ("n", "fractions", "sentence"),
    [
        (2, (0.1, 0.1), "expected enough examples in here for training beside 1 to validate and 1 to test, got 2"),
        (10, (0.5, 0.5), "got 10; lower dataset.validation_fraction"),
        (10, (1.0, 0.1), "dataset.validation_fraction from 0 to below 1, got 1.0"),
        (10, (0.1, -0.1), "dataset.test_fraction from 0 to below 1, got -0.1"),
        (10, (0.1, float("nan")), "dataset.test_fraction"),
        (10, ("a", 0.1), "dataset.validation_fraction"),
    ],
)
def test_impossible_shares_are_one_sentence(n, fractions, sentence):
    with pytest.raises(ValueError, match=sentence):
        fill_parts({"train": pool(n)}, validation_fraction=fractions[0], test_fraction=fractions[1], where="here")
