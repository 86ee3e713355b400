"""Every gradient in closed form against automatic differentiation."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Independent, Laplace

from tests.mcmc.targets import TARGETS
from vaebench.energies.analytic.gaussian import GaussianEnergy
from vaebench.energies.base import BaseEnergyFunction
from vaebench.energies.latent.aggregate_posterior import AggregatePosteriorEnergy
from vaebench.energies.latent.manifold import ManifoldEnergy
from vaebench.energies.latent.prior import PriorEnergy
from vaebench.energies.learned.mlp import MLPEnergy
from vaebench.objectives.riemannian_metric import RiemannianMetric, pack


def metric(num_centroids: int, num_dims: int, dtype: torch.dtype = torch.float64) -> RiemannianMetric:
    centroids = torch.randn(num_centroids, num_dims, dtype=dtype)
    factor = torch.tril(0.5 * torch.randn(num_centroids, num_dims, num_dims, dtype=dtype)) + torch.eye(num_dims)
    return RiemannianMetric(centroids, pack(factor @ factor.mT).to(dtype), temperature=0.8, regularization=0.01)


def _laplace() -> Laplace:
    return Laplace(torch.zeros(3).double(), torch.ones(3).double(), validate_args=False)


ENERGIES = {
    **{name: (lambda energy=energy: energy) for name, energy in TARGETS.items()},
    "gaussian in three dimensions": lambda: GaussianEnergy(torch.ones(3).double(), torch.eye(3).double() + 0.5),
    "prior": lambda: PriorEnergy(Independent(_laplace(), 1)),
    "aggregate_posterior": lambda: AggregatePosteriorEnergy(torch.randn(40, 3), torch.randn(40, 3)),
    **{
        f"mlp with {name}": (lambda name=name: MLPEnergy(3, (8, 5), name, reference_scale=1.5).double())
        for name in ("silu", "relu", "tanh", "none", "gelu")
    },
    "manifold": lambda: ManifoldEnergy(metric(40, 3)),
    "manifold in one dimension": lambda: ManifoldEnergy(metric(10, 1)),
}


@pytest.mark.parametrize("reach", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("name", ENERGIES)
def test_gradient_is_that_of_autograd(name, reach):
    energy = ENERGIES[name]()
    x = reach * torch.randn(20, energy.start(1).shape[1], dtype=torch.float64)
    value, gradient = energy.value_and_grad(x)
    expected, expected_gradient = BaseEnergyFunction.value_and_grad(energy, x)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, expected_gradient)
    torch.testing.assert_close(energy.gradient(x), expected_gradient)
    torch.testing.assert_close(energy.log_density(x), -expected)
    assert not value.requires_grad
    assert not gradient.requires_grad


@pytest.mark.parametrize("name", ENERGIES)
def test_gradients_need_no_gradient_mode(name):
    energy = ENERGIES[name]()
    x = energy.start(5).double()
    with torch.no_grad():
        value, gradient = energy.value_and_grad(x)
        alone = energy.gradient(x)
    assert value.shape == (5,)
    assert gradient.shape == x.shape
    assert torch.equal(alone, gradient)
    assert not energy.gradient(x).requires_grad


@pytest.mark.parametrize("name", ENERGIES)
def test_rows_do_not_depend_on_each_other(name):
    energy = ENERGIES[name]()
    x = energy.start(6).double()
    value, gradient = energy.value_and_grad(x)
    broken = x.clone()
    broken[0] = float("nan")
    value_again, gradient_again = energy.value_and_grad(broken)
    assert not value_again[0].isfinite()
    torch.testing.assert_close(value_again[1:], value[1:])
    torch.testing.assert_close(gradient_again[1:], gradient[1:])
