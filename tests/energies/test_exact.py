"""Analytic energies against quadrature: moments of the density, and of the exact draws."""

from __future__ import annotations

import math

import pytest
import torch

from tests.mcmc.targets import TARGETS
from vaebench.energies import (
    AckleyEnergy,
    DoubleWellEnergy,
    FunnelEnergy,
    GaussianEnergy,
    GaussianMixtureEnergy,
    HarmonicEnergy,
    RastriginEnergy,
    RingsEnergy,
    RosenbrockEnergy,
)

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


@pytest.mark.parametrize("name", TARGETS)
def test_exact_draws_obey_the_virial_theorem(name):
    """E[x . grad U] = D for every density that vanishes at infinity: draws, energy and gradient belong together."""
    energy = TARGETS[name]
    x = energy.exact_sample(50_000).double()
    virial = (x * energy.gradient(x)).sum(-1)
    assert within(virial, x.shape[1])
    assert x.shape == (50_000, energy.num_dims)


@pytest.mark.parametrize(
    ("name", "mean", "variance", "energy_mean"),
    [  # by quadrature: the first coordinate's moments, and the mean energy
        ("harmonic", 0.0, 1.0, 1.0),
        ("rastrigin", 0.0, 0.4990316, 2 * 1.01302786),
        ("styblinski_tang", -2.88860402, 0.17230663**2, None),
        ("himmelblau", 0.84215573, 9.96848899, 1.01268459),
        ("booth", 1.0, 5 / 18, 1.0),
        ("funnel", 0.0, 9.0, 0.5 + 4.5),
        ("eight_gaussians", 0.0, 2.16, None),
        ("gaussian_mixture", 0.0, 8 / 3 + 0.36, None),
    ],
)
def test_exact_draws_have_the_moments_of_quadrature(name, mean, variance, energy_mean):
    energy = TARGETS[name]
    x = energy.exact_sample(N).double()
    assert within(x[:, 0], mean)
    assert within((x[:, 0] - mean).square(), variance)
    if energy_mean is not None:
        assert within(energy.energy(x), energy_mean)


def test_himmelblaus_modes_have_their_masses():
    x = TARGETS["himmelblau"].exact_sample(N)
    masses = {(True, True): 0.340813, (False, True): 0.214558, (False, False): 0.159187, (True, False): 0.285442}
    for (right, up), mass in masses.items():
        assert within((((x[:, 0] > 0) == right) & ((x[:, 1] > 0) == up)).double(), mass)


@pytest.mark.parametrize("name", ["two_moons", "rings", "ackley"])
def test_draws_on_a_grid_have_the_moments_of_quadrature(name):
    energy = TARGETS[name]
    low, high = getattr(energy, "box", (-8.0, 8.0))[:2]
    axis = torch.linspace(low, high, 1501, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    weights = torch.exp(-energy.energy(points))
    weights /= weights.sum()
    x = energy.exact_sample(N)
    for function in (lambda z: z[:, 0].square(), lambda z: z.square().sum(-1).sqrt(), energy.energy):
        assert within(function(x), float(weights @ function(points)))


@pytest.mark.parametrize("num_dims", [1, 3])
def test_ackley_in_other_dimensions(num_dims):
    energy = AckleyEnergy(num_dims, a=6.0, confinement=2.0)
    x = energy.exact_sample(N)
    axis = torch.linspace(-12, 12, {1: 20_001, 3: 121}[num_dims], dtype=torch.float64)
    points = torch.cartesian_prod(*[axis] * num_dims).view(-1, num_dims)
    weights = torch.softmax(-energy.energy(points), 0)
    for function in (lambda z: z[:, 0].square(), lambda z: z.square().sum(-1).sqrt(), energy.energy):
        assert within(function(x), float(weights @ function(points)))


def test_eight_schools_agree_with_importance_sampling():
    """Prior draws weighted by the likelihood: independent of the grid and of the conjugate step."""
    energy, n = TARGETS["eight_schools"], 400_000
    mu = 5 * torch.randn(n, dtype=torch.float64)
    log_tau = (5 * torch.tan(math.pi / 2 * torch.rand(n, dtype=torch.float64))).log()
    eta = torch.randn(n, 8, dtype=torch.float64)
    effects, errors = energy.effects.double(), energy.errors.double()
    log_w = -0.5 * (((effects - mu[:, None] - log_tau.exp()[:, None] * eta) / errors).square()).sum(-1)
    weights = torch.softmax(log_w, 0)
    x = energy.exact_sample(N)
    for exact, prior in ((x[:, 0], mu), (x[:, 1].exp(), log_tau.exp()), (x[:, 2], eta[:, 0])):
        mean = float(weights @ prior)
        error = float((weights.square() @ (prior - mean).square()).sqrt())
        assert abs(float(exact.mean()) - mean) <= 4.5 * math.hypot(error, float(exact.std()) / math.sqrt(N))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: HarmonicEnergy(k=0), "k must be above 0"),
        (lambda: RastriginEnergy(num_dims=0), "num_dims must be"),
        (lambda: FunnelEnergy(num_dims=1), "num_dims must be"),
        (lambda: RingsEnergy(radii=[]), "at least one ring"),
        (lambda: RingsEnergy(width=-1), "width must be above 0"),
        (lambda: GaussianMixtureEnergy([[0.0], [1.0, 2.0]]), "points of one dimension"),
        (lambda: GaussianMixtureEnergy([[0.0], [1.0]], weights=[1.0]), "a weight for each"),
        (lambda: AckleyEnergy(confinement=0), "confinement must be above 0"),
        (lambda: AckleyEnergy(num_dims=0), "num_dims must be"),
        (lambda: DoubleWellEnergy(barrier_height=-1), "barrier_height must be above 0"),
        (lambda: GaussianEnergy([0.0, 0.0], [[1.0], [0.0, 1.0]]), "rows of one length"),
    ],
)
def test_settings_out_of_range_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
