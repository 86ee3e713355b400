from __future__ import annotations

import math

import pytest
import torch

from vaebench.data.binarization import make_split
from vaebench.data.examples import Examples
from vaebench.data.io.source import Source


class Rows(Source):
    def __init__(self, x: torch.Tensor) -> None:
        self._x, self.shape, self.dtype = x, tuple(x.shape[1:]), x.dtype

    def __len__(self) -> int:
        return len(self._x)

    def read(self, indices: torch.Tensor) -> torch.Tensor:
        return self._x[indices]

    def take(self, indices: torch.Tensor) -> Source:
        return Rows(self._x[indices])


def grey(n: int = 40) -> torch.Tensor:
    return torch.randint(0, 256, (n, 1, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def split(x: torch.Tensor | Source, binarization: str, part: str = "train"):
    return make_split(Examples(x), scale=255, binarization=binarization, part=part)


@pytest.mark.parametrize("binarization", ["none", "threshold", "static", "dynamic"])
@pytest.mark.parametrize("part", ["train", "validation"])
def test_streamed_equals_in_memory_to_the_bit(binarization, part):
    x = grey()
    rows = torch.randperm(40)[:17]
    torch.manual_seed(2)
    in_memory = split(x, binarization, part).batch(rows).x
    torch.manual_seed(2)
    streamed = split(Rows(x), binarization, part).batch(rows).x
    assert torch.equal(in_memory, streamed)
    if binarization != "none":
        assert ((in_memory == 0) | (in_memory == 1)).all()


def test_threshold_is_one_above_a_half():
    x = torch.tensor([0, 127, 128, 255], dtype=torch.uint8)[:, None]
    assert split(x, "threshold").x.flatten().tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(("binarization", "num_draws"), [("dynamic", 4000), ("static", 1)])
def test_draws_have_the_pixels_as_their_mean(binarization, num_draws):
    # Static draws are made once for each row: there the rows are copies of one picture.
    x = grey(1) if binarization == "dynamic" else grey(1).expand(4000, -1, -1, -1).contiguous()
    part = split(x, binarization)
    draws = torch.cat([part.batch(range(len(part))).x for _ in range(num_draws)])
    p = grey(1)[0].float() / 255
    standard_error = (p * (1 - p) / 4000).sqrt()
    assert ((draws.mean(0) - p).abs() <= 4 * standard_error + 1e-7).all()
    # Pixels and rows are independent: the variance of a row's sum is the sum of the pixels' variances.
    variance, expected = draws.flatten(1).sum(1).var(), (p * (1 - p)).sum()
    assert abs(variance / expected - 1) < 4 * math.sqrt(2 / 4000)
    neighbours = torch.corrcoef(torch.stack([draws[:-1].flatten(1).sum(1), draws[1:].flatten(1).sum(1)]))[0, 1]
    assert abs(neighbours) < 4 / math.sqrt(4000)


def test_dynamic_training_changes_and_evaluation_does_not():
    x = grey()
    train, validation, test = (split(x, "dynamic", part) for part in ("train", "validation", "test"))
    rows = torch.arange(40)
    assert not torch.equal(train.batch(rows).x, train.batch(rows).x)
    assert torch.equal(validation.batch(rows).x, validation.batch(rows).x)
    assert torch.equal(validation.x, split(x, "static", "validation").x)
    assert not torch.equal(validation.x, test.x)


def test_a_static_row_is_the_same_in_a_subset():
    x = grey()
    for whole in (split(x, "static"), split(Rows(x), "static")):
        assert torch.equal(whole.subset([7, 3]).batch([0, 1]).x, whole.batch([7, 3]).x)


def test_static_draws_never_change():
    half = torch.full((2, 12), 128, dtype=torch.uint8)
    assert split(half, "static").x.to(torch.int64).tolist() == [
        [0, 1, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0],
        [0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1],
    ]
