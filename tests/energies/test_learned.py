"""Energies that networks compute."""

from __future__ import annotations

import math

import pytest
import torch

from vaebench.energies import ConvEnergy, MLPEnergy
from vaebench.samplers import LangevinDynamics


@pytest.mark.parametrize(("kind", "num_dims"), [(MLPEnergy, 2), (ConvEnergy, 64)])
def test_the_seed_makes_the_weights_and_changes_nothing_else(kind, num_dims):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first, second, other = kind(), kind(), kind(seed=1)
    assert torch.equal(torch.rand(1), expected)
    x = torch.randn(5, num_dims)
    assert torch.equal(first(x), second(x))
    assert not torch.equal(first(x), other(x))
    assert first(x).shape == (5,)
    torch.testing.assert_close(first(x), first.tilt(x) + x.square().sum(-1) / 8)
    assert first.start(7).shape == (7, num_dims)
    assert float(first.start(2000).std()) == pytest.approx(2.0, rel=0.1)


def test_plain_layers_begin_with_the_weights_of_he_et_al():
    energy = MLPEnergy(2, hidden_dims=[400, 400])
    convolution = ConvEnergy(channels=[64, 64]).trunk.layers[2]
    for layer, fan_in in (
        (energy.trunk.layers[2], 400),
        (energy.head, 400),
        (convolution, 64 * math.prod(convolution.kernel_size)),
    ):
        weight = layer.weight.detach()
        within = 4.5 * (2 / weight.numel()) ** 0.5  # standard errors of a variance
        assert float(weight.square().mean()) == pytest.approx(2 / fan_in, rel=within)


def test_plain_layers_have_a_gradient_in_closed_form(monkeypatch):
    """And a class that changes the energy loses it."""

    class Tilted(MLPEnergy):
        def tilt(self, x):
            return 2 * super().tilt(x)

    def refuse(*_, **__):
        raise RuntimeError("automatic differentiation")

    x = torch.randn(4, 2)
    monkeypatch.setattr(torch.autograd, "grad", refuse)
    MLPEnergy().gradient(x)
    for energy in (Tilted(), MLPEnergy(activation="gelu"), ConvEnergy((1, 1, 2))):
        with pytest.raises(RuntimeError, match="automatic"):
            energy.gradient(x)


def test_samplers_draw_from_them():
    assert LangevinDynamics(MLPEnergy(input_dim=3), step_size=0.1).sample(n_samples=4, n_steps=3).shape == (4, 3)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: MLPEnergy(0), "input_dim must be"),
        (lambda: MLPEnergy(seed=-1), "seed must be"),
        (lambda: MLPEnergy(reference_scale=0.0), "reference_scale must be above 0"),
        (lambda: ConvEnergy((8, 8)), "shape must be channels, height and width"),
    ],
)
def test_a_mistake_is_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
