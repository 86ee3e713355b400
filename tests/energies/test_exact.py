"""Analytic energies against quadrature: moments of the density, and of the exact draws."""

from __future__ import annotations

import math

import pytest
import torch

from vaebench.energies.analytic.double_well import DoubleWellEnergy
from vaebench.energies.analytic.gaussian import GaussianEnergy
from vaebench.energies.analytic.rosenbrock import RosenbrockEnergy

N = 200_000


def within(values: torch.Tensor, expected: float) -> bool:
    return abs(float(values.mean()) - expected) <= 4.5 * float(values.std()) / math.sqrt(len(values))


@pytest.mark.parametrize(
    ("height", "square", "energy", "log_z"),
    [(2.0, 0.85213615, 0.54572770, 0.34423822), (5.0, 0.93683394, 0.56583030, None)],
)
def test_double_well(height, square, energy, log_z):
    well = DoubleWellEnergy(1, barrier_height=height)
    grid = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    density = torch.exp(-well.energy(grid[:, None]))
    z = torch.trapezoid(density, grid)
    assert float(torch.trapezoid(grid.square() * density, grid) / z) == pytest.approx(square, abs=1e-8)
    assert float(torch.trapezoid(well.energy(grid[:, None]) * density, grid) / z) == pytest.approx(energy, abs=1e-8)
    if log_z is not None:
        assert float(z.log()) == pytest.approx(log_z, abs=1e-8)
    x = well.exact_sample(N)
    assert within(x[:, 0], 0.0)
    assert within(x[:, 0].square(), square)
    assert within(well.energy(x), energy)


def test_rosenbrock():
    banana = RosenbrockEnergy()
    a = torch.linspace(-6, 8, 1401, dtype=torch.float64)
    ridge = torch.linspace(-1, 1, 2001, dtype=torch.float64)  # x_2 - x_1^2, in which the density is a product
    points = torch.stack([a[:, None].expand(-1, 2001), a[:, None].square() + ridge], -1)
    energy = banana.energy(points.flatten(0, 1)).view(1401, 2001)

    def integral(values):
        return torch.trapezoid(torch.trapezoid(values * torch.exp(-energy), ridge), a)

    z = integral(torch.ones_like(energy))
    mean, energy_mean = integral(points[..., 1]) / z, integral(energy) / z
    variance = integral((points[..., 1] - mean).square()) / z
    assert float(z.log()) == pytest.approx(-1.15785521, abs=1e-8)
    assert float(mean) == pytest.approx(1.5, abs=1e-6)
    assert float(variance) == pytest.approx(2.505, abs=1e-6)
    assert float(energy_mean) == pytest.approx(1.0, abs=1e-6)
    x = banana.exact_sample(N)
    assert within(x[:, 0], 1.0)
    assert within(x[:, 1], 1.5)
    assert within((x[:, 0] - 1).square(), 0.5)
    assert within((x[:, 1] - 1.5).square(), 2.505)
    assert within(banana.energy(x), 1.0)


def test_gaussian():
    mean = torch.tensor([1.0, 3.0], dtype=torch.float64)
    covariance = torch.tensor([[0.27778, -0.22222], [-0.22222, 0.27778]], dtype=torch.float64)
    energy = GaussianEnergy(mean, covariance)
    x = energy.exact_sample(N)
    reference = torch.distributions.MultivariateNormal(mean, covariance)
    difference = energy.energy(x[:100]) + reference.log_prob(x[:100])
    torch.testing.assert_close(difference, difference[:1].expand(100))
    assert within(x[:, 0], 1.0)
    assert within((x[:, 0] - 1) * (x[:, 1] - 3), -0.22222)
    assert within(energy.energy(x), 1.0)


@pytest.mark.parametrize("covariance", [torch.ones(2, 2), torch.tensor([[1.0, 0.5], [0.0, 1.0]]), torch.eye(3)])
def test_gaussian_refuses_what_is_no_covariance(covariance):
    with pytest.raises(ValueError, match="covariance"):
        GaussianEnergy(torch.zeros(2), covariance)
