"""Each set against the law that its docstring states."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vaebench.data.checkerboard import Checkerboard
from vaebench.data.eight_gaussians import EightGaussians
from vaebench.data.rings import Rings
from vaebench.data.spirals import Spirals
from vaebench.data.two_moons import TwoMoons

SETS = [TwoMoons, Rings, EightGaussians, Spirals, Checkerboard]


def everything(data):
    parts = (data.train, data.validation, data.test)
    return torch.cat([part.x for part in parts]).double(), torch.cat([part.y for part in parts])


@pytest.mark.parametrize("cls", SETS)
def test_sizes_labels_and_the_same_points_every_time(cls):
    data = cls()
    assert (len(data.train), len(data.validation), len(data.test)) == (8000, 1000, 1000)
    assert data.shape == (2,)
    assert data.likelihood_name == "gaussian"
    x, y = everything(data)
    shares = y.bincount(minlength=data.num_classes) / 10000
    expected = 1 / data.num_classes
    assert len(shares) == data.num_classes
    assert (shares - expected).abs().max() < 4 * math.sqrt(expected / 10000)
    assert torch.equal(cls().train.x, data.train.x)
    assert len(cls(num_points=50, num_examples=7).train) == 7
    assert len(x.unique(dim=0)) == 10000
    with pytest.raises(ValueError, match="num_points must be a whole number of at least 10"):
        cls(num_points=3)


def test_the_noise_around_moons_and_rings_is_as_said():
    x, y = everything(TwoMoons(noise=0.0))
    upper, lower = x[y == 0], torch.tensor([1.0, 0.5]).double() - x[y == 1]
    for moon in (upper, lower):
        assert torch.allclose(moon.norm(dim=1), torch.ones(len(moon)).double(), atol=1e-6)
        assert (moon[:, 1] >= -1e-6).all()
        angle = torch.atan2(moon[:, 1], moon[:, 0])
        assert angle.mean().item() == pytest.approx(math.pi / 2, abs=4 * math.pi / math.sqrt(12 * len(moon)))
    x, y = everything(Rings(noise=0.0))
    assert torch.allclose(x.norm(dim=1), y.double() + 1, atol=1e-5)
    assert x.mean(0).abs().max() < 4 * 2 / 100
    noisy, _ = everything(Rings(noise=0.3))
    deviation = (noisy - x).std().item()
    assert deviation == pytest.approx(0.3, rel=4 / math.sqrt(2 * 20000))


def test_eight_gaussians_have_their_means_and_scales():
    x, y = everything(EightGaussians(scale=0.3))
    for k in range(8):
        part = x[y == k]
        centre = 2 * torch.tensor([math.cos(math.pi * k / 4), math.sin(math.pi * k / 4)]).double()
        assert (part.mean(0) - centre).abs().max() < 4.5 * 0.3 / math.sqrt(len(part))
        assert part.std(0).tolist() == pytest.approx([0.3, 0.3], rel=4.5 / math.sqrt(2 * len(part)))


def test_points_of_a_spiral_lie_on_its_arms():
    x, y = everything(Spirals(noise=0.0))
    radius = x.norm(dim=1) / 4
    angle = 3 * math.pi * radius + math.pi * y
    expected = 4 * radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    assert torch.allclose(x, expected, atol=1e-4)
    # r^2 is uniform: mean 1/2, standard deviation 1 / sqrt(12)
    assert radius.square().mean().item() == pytest.approx(0.5, abs=4 / math.sqrt(12 * 10000))


def test_only_dark_fields_have_points_and_each_the_same():
    x, y = everything(Checkerboard())
    field = np.floor((x.numpy() + 4) / 2).astype(int)
    assert field.min() == 0
    assert field.max() == 3
    assert ((field.sum(1) % 2) == 0).all()
    assert len({tuple(f) for f in field}) == 8
    assert len({(tuple(f), int(label)) for f, label in zip(field, y, strict=True)}) == 8
    inside = (x.numpy() + 4) / 2 - field
    assert inside.mean(0).tolist() == pytest.approx([0.5, 0.5], abs=4 / math.sqrt(12 * 10000))
