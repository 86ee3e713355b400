from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from vaebench.core import Batch
from vaebench.distributions.diagonal_gaussian import DiagonalGaussian
from vaebench.energies.latent import aggregate_posterior
from vaebench.energies.latent.aggregate_posterior import AggregatePosteriorEnergy, AggregatePosteriorTarget


def mixture(mean, log_var):
    parts = Independent(Normal(mean.double(), (0.5 * log_var.double()).exp()), 1)
    return MixtureSameFamily(Categorical(logits=torch.zeros(len(mean)).double()), parts)


@pytest.mark.parametrize("num_components", [1, 7, 1000])
def test_is_the_mixture_normalised(num_components):
    mean, log_var = torch.randn(num_components, 4), torch.randn(num_components, 4)
    energy = AggregatePosteriorEnergy(mean, log_var)
    x = 2 * torch.randn(50, 4, dtype=torch.float64)
    expected = mixture(mean, log_var).log_prob(x)
    torch.testing.assert_close(energy.log_density(x), expected)
    torch.testing.assert_close(-energy.value_and_grad(x)[0], expected)


def test_chunks_do_not_show(monkeypatch):
    energy = AggregatePosteriorEnergy(torch.randn(103, 3), torch.randn(103, 3))
    x = 3 * torch.randn(9, 3, dtype=torch.float64)
    whole = (energy.energy(x), *energy.value_and_grad(x))
    monkeypatch.setattr(aggregate_posterior, "CHUNK", 90)
    for one, other in zip(whole, (energy.energy(x), *energy.value_and_grad(x)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_narrow_posteriors_lose_no_digits():
    mean = 3 + torch.randn(20, 2)
    energy = AggregatePosteriorEnergy(mean, torch.full((20, 2), 2 * math.log(1e-3)))
    x = mean + 1e-3 * torch.randn(20, 2)
    value, gradient = energy.value_and_grad(x)
    leaf = x.double().requires_grad_(True)
    expected = -mixture(mean, torch.full((20, 2), 2 * math.log(1e-3))).log_prob(leaf)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), leaf)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-5, atol=1e-2)


def test_far_away_it_is_finite():
    energy = AggregatePosteriorEnergy(torch.zeros(3, 2), torch.zeros(3, 2))
    value, gradient = energy.value_and_grad(torch.full((1, 2), 1e4, dtype=torch.float64))
    assert float(value) == pytest.approx(1e8, rel=1e-6)
    torch.testing.assert_close(gradient, torch.full((1, 2), 1e4, dtype=torch.float64))


def test_exact_draws_have_the_moments_of_the_mixture():
    mean, log_var = 2 * torch.randn(5, 2), torch.randn(5, 2)
    x = AggregatePosteriorEnergy(mean, log_var).exact_sample(100_000)
    reference = mixture(mean, log_var)
    error = reference.variance.sqrt() / math.sqrt(len(x))
    assert ((x.mean(0) - reference.mean).abs() <= 4.5 * error).all()


class FakeModel(torch.nn.Module):
    capabilities = frozenset({"posterior", "rate"})
    shape = (2,)
    why_not = {"prior": "it learns none"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([[1.0, 0.5], [0.0, 2.0]]))

    def posterior(self, x, y=None):
        return DiagonalGaussian(x @ self.weight, torch.full_like(x, -1.0))


class FakeSplit:
    def __init__(self, x) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices):
        return Batch(self.x[indices])


def test_the_target_encodes_the_whole_split():
    model, split = FakeModel(), FakeSplit(torch.randn(2500, 2))
    energy = AggregatePosteriorTarget().build(model, FakeSplit(split.x))
    x = torch.randn(5, 2, dtype=torch.float64)
    expected = mixture((split.x @ model.weight).detach(), torch.full((2500, 2), -1.0)).log_prob(x)
    torch.testing.assert_close(energy.log_density(x), expected, rtol=1e-5, atol=1e-5)


def test_refusals():
    with pytest.raises(ValueError, match="target=aggregate_posterior"):
        AggregatePosteriorTarget().build(FakeModel(), None)
    model = FakeModel()
    model.posterior = lambda x, y=None: SimpleNamespace(mean=x)
    with pytest.raises(ValueError, match="diagonal Gaussian"):
        AggregatePosteriorTarget().build(model, FakeSplit(torch.randn(3, 2)))


def test_squares_are_not_taken_in_single_precision():
    """Narrow posteriors far from the origin: the energy is as exact as the gradient's value, for single-precision x."""
    mean, log_var = 3 * torch.randn(300, 10), torch.full((300, 10), -7.0)
    energy = AggregatePosteriorEnergy(mean, log_var)
    x = energy.exact_sample(200).float()
    exact = -mixture(mean.double(), log_var.double()).log_prob(x.double())
    assert float((energy.energy(x).double() - exact).abs().max()) < 1e-3
    assert float((energy.value_and_grad(x)[0].double() - exact).abs().max()) < 1e-3
