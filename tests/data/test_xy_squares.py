from __future__ import annotations

import pytest
import torch

from vaebench.data.xy_squares import FACTOR_NAMES, XYSquares, all_factors, draw


def test_a_picture_by_hand():
    x = draw(torch.tensor([[1, 3, 0, 0, 2, 1]]), 8)[0]
    expected = torch.zeros(3, 8, 8, dtype=torch.uint8)
    expected[0, 6:8, 2:4] = 1  # column 1, row 3
    expected[1, 0:2, 0:2] = 1
    expected[2, 2:4, 4:6] = 1
    assert torch.equal(x, expected)


def test_every_combination_once_over_three_splits():
    data = XYSquares()
    assert data.factor_names == FACTOR_NAMES == ("x0", "y0", "x1", "y1", "x2", "y2")
    assert data.factor_sizes == (4,) * 6
    assert (len(data.train), len(data.validation), len(data.test)) == (2896, 400, 800)
    factors = torch.cat([split.factors for split in (data.train, data.validation, data.test)])
    assert len(factors.unique(dim=0)) == len(all_factors()) == 4096
    x = torch.cat([split.x for split in (data.train, data.validation, data.test)])
    assert x.shape == (4096, 3, 16, 16)
    assert (x.flatten(2).sum(2) == 16).all()
    assert torch.equal(x.to(torch.uint8), draw(factors, 16))


def test_factors_travel_with_their_pictures():
    data = XYSquares(num_examples=50)
    rows = torch.tensor([7, 3])
    for split in (data.train, data.train.subset(range(20)), data.train.to("cpu")):
        batch = split.batch(rows)
        assert torch.equal(draw(batch.factors, 16), batch.x.to(torch.uint8))
    assert torch.equal(next(data.train.batches(rows)).factors, data.train.factors[rows])


def test_likelihood():
    assert type(XYSquares().likelihood).__name__ == "Bernoulli"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"size": 10}, "multiple of 4"),
        ({"size": 2}, "size must be a whole number of at least 4"),
        ({"num_test": 5000}, "dataset.num_test"),
    ],
)
def test_mistakes(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        XYSquares(**arguments)
