"""The microcanonical integrator against its identities. The protocol is elsewhere."""

from __future__ import annotations

import math

import pytest
import torch

from tests.mcmc.targets import TARGETS, parameters
from vaebench.energies.analytic.gaussian import GaussianEnergy
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.mcmc.kernels.mclmc import DirectionState, MCLMCKernel, isokinetic, kick, unit
from vaebench.mcmc.state import Draw, Parameters


def test_a_kick_is_the_equation_of_motion():
    """du/dt = -(I - u u') g / (D - 1), and d(kinetic)/dt = -u.g; kicks add up."""
    u, g = unit(torch.randn(20, 4, dtype=torch.float64)), torch.randn(20, 4, dtype=torch.float64)
    time = torch.tensor(1e-6, dtype=torch.float64)
    end, change = kick(u, g, time)
    slope = -(g - u * (u * g).sum(-1, keepdim=True)) / 3
    torch.testing.assert_close((end - u) / time, slope, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(change / time, -(u * g).sum(-1), rtol=1e-4, atol=1e-5)
    middle, first = kick(u, g, time * 4e5)
    end, second = kick(middle, g, time * 3e5)
    direct, whole = kick(u, g, time * 7e5)
    torch.testing.assert_close(end, direct)
    torch.testing.assert_close(first + second, whole)
    torch.testing.assert_close(end.norm(dim=-1), torch.ones(20, dtype=torch.float64))


@pytest.mark.parametrize("num_dims", [2, 3, 4])
def test_the_weight_is_the_jacobian_on_the_sphere(num_dims):
    """A kick contracts the sphere by exp(-change): what the acceptance of a proposal must make up for."""
    u = unit(torch.randn(1, num_dims, dtype=torch.float64))
    g, time = torch.randn(1, num_dims, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)
    end, change = kick(u, g, time)
    jacobian = torch.autograd.functional.jacobian(lambda v: kick(unit(v), g, time)[0][0], u)[:, 0]
    tangent, image = (torch.linalg.svd(v).Vh[1:] for v in (u, end))
    volume = torch.linalg.det(image @ jacobian @ tangent.T).abs()
    assert float(volume) == pytest.approx(math.exp(-float(change[0])), rel=1e-10)


@pytest.mark.parametrize("name", ["gaussian", "double_well", "rosenbrock"])
def test_the_integrator_reverses(name):
    energy = TARGETS[name]
    start = HMCKernel().init(energy.exact_sample(30), energy)
    u = unit(torch.randn_like(start.position))
    end, direction, change = isokinetic(energy, start, u, parameters(0.02), 30)
    back, opposite, other = isokinetic(energy, end, -direction, parameters(0.02), 30)
    assert (end.position - start.position).abs().max() > 0.1
    torch.testing.assert_close(back.position, start.position, rtol=0, atol=1e-8)
    torch.testing.assert_close(opposite, -u, rtol=0, atol=1e-7)
    torch.testing.assert_close(change, -other, rtol=0, atol=1e-7)


def test_the_energy_error_is_of_second_order():
    energy = TARGETS["gaussian"]
    start = HMCKernel().init(energy.exact_sample(200), energy)
    u, errors, sizes = unit(torch.randn_like(start.position)), [], [0.08, 0.04, 0.02, 0.01]
    for size in sizes:
        end, _, kinetic = isokinetic(energy, start, u, parameters(size), round(0.8 / size))
        errors.append(math.log(float((end.energy - start.energy + kinetic).abs().median())))
    assert 1.9 <= (errors[0] - errors[-1]) / math.log(sizes[0] / sizes[-1]) <= 2.1


def test_a_direction_is_forgotten_over_its_length():
    """In many dimensions its correlation falls by exp(-epsilon / L) in a step."""
    flat = GaussianEnergy(torch.zeros(200).double(), 1e12 * torch.eye(200).double())
    start = MCLMCKernel().init(torch.zeros(500, 200, dtype=torch.float64), flat)
    u = unit(torch.randn_like(start.position))
    state = DirectionState(**vars(start), direction=u)
    settings = Parameters(torch.tensor(0.3).double(), torch.ones(200).double(), 1.0, torch.tensor(2.0).double())
    for _ in range(5):
        state, _ = MCLMCKernel().step(state, flat, settings, Draw())
    assert float((state.direction * u).sum(-1).mean()) == pytest.approx(math.exp(-5 * 0.3 / 2.0), rel=0.02)


def test_short_steps_have_little_bias():
    """A missing D - 1, or a wrong weight of the kicks, would show in the variances."""
    deviations = torch.linspace(0.5, 2, 6, dtype=torch.float64)
    energy = GaussianEnergy(torch.zeros(6, dtype=torch.float64), torch.diag(deviations.square()))
    state = MCLMCKernel().init(3 * energy.exact_sample(2000), energy)
    settings = Parameters(torch.tensor(0.25).double(), deviations.square(), 1.0, torch.tensor(2.5).double())
    squares = []
    for t in range(160):
        state, _ = MCLMCKernel().step(state, energy, settings, Draw())
        if t >= 100:
            squares.append(state.position.square().mean(0))
    torch.testing.assert_close(torch.stack(squares).mean(0), deviations.square(), rtol=0.05, atol=0)
