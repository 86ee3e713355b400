"""The leapfrog integrator against its identities, and the lengths of trajectories. The protocol is elsewhere."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from tests.mcmc.targets import TARGETS, Derived, correlated_gaussian, parameters, step_size
from vaebench.energies.analytic.gaussian import GaussianEnergy
from vaebench.mcmc.kernels.hmc import HMCKernel, kinetic_energy, leapfrog
from vaebench.mcmc.state import Draw, Parameters, State


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-3)])
@pytest.mark.parametrize("name", ["gaussian", "double_well", "rosenbrock"])
def test_leapfrog_reverses(name, dtype, tolerance):
    energy = copy.deepcopy(TARGETS[name]).to(dtype)
    start = HMCKernel().init(energy.exact_sample(50).to(dtype), energy)
    momentum = torch.randn_like(start.position)
    settings = parameters(step_size("hmc", name) / 2, dtype=dtype)
    end, end_momentum = leapfrog(energy, start, momentum, settings, 100)
    back, back_momentum = leapfrog(energy, end, -end_momentum, settings, 100)
    assert (end.position - start.position).abs().max() > 0.1
    assert (back.position - start.position).abs().max() <= tolerance
    assert (back_momentum + momentum).abs().max() <= tolerance * 20


def test_leapfrog_preserves_volume():
    covariance = torch.eye(3, dtype=torch.float64) + 0.4
    gaussian = GaussianEnergy(torch.zeros(3, dtype=torch.float64), covariance)
    quartic = Derived(gaussian, lambda x, value, gradient: (value + 0.25 * (x**4).sum(-1), gradient + x**3))

    def flow(z):
        value, gradient = quartic.value_and_grad(z[None, :3])
        end, p = leapfrog(quartic, State(z[None, :3], value, gradient), z[None, 3:], parameters(0.2, 3), 7)
        return torch.cat([end.position[0], p[0]])

    for _ in range(5):
        jacobian = torch.autograd.functional.jacobian(flow, torch.randn(6, dtype=torch.float64))
        assert abs(float(torch.linalg.det(jacobian)) - 1) <= 1e-8


@pytest.mark.parametrize("name", ["gaussian", "double_well"])
def test_leapfrog_is_of_second_order(name):
    energy = TARGETS[name]
    start = HMCKernel().init(energy.exact_sample(200), energy)
    momentum = torch.randn_like(start.position)
    errors, sizes = [], [0.02, 0.01, 0.005, 0.0025]
    for size in sizes:
        settings = parameters(size)
        end, p = leapfrog(energy, start, momentum, settings, round(1 / size))
        h = [s.energy + kinetic_energy(q, settings.inverse_mass_matrix) for s, q in ((start, momentum), (end, p))]
        errors.append(math.log(float((h[1] - h[0]).abs().max())))
    slope = (errors[0] - errors[-1]) / math.log(sizes[0] / sizes[-1])
    assert 1.9 <= slope <= 2.1


def test_leapfrog_follows_the_harmonic_oscillator():
    energy = GaussianEnergy(torch.zeros(1, dtype=torch.float64), torch.eye(1, dtype=torch.float64))
    start = HMCKernel().init(torch.tensor([[1.0], [-0.5]], dtype=torch.float64), energy)
    momentum = torch.tensor([[0.3], [2.0]], dtype=torch.float64)
    settings = Parameters(torch.tensor(1e-3, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    end, p = leapfrog(energy, start, momentum, settings, 1000)
    cos, sin = math.cos(1.0), math.sin(1.0)
    torch.testing.assert_close(end.position, start.position * cos + momentum * sin, atol=1e-6, rtol=0)
    torch.testing.assert_close(p, momentum * cos - start.position * sin, atol=1e-6, rtol=0)


def test_the_gradient_alone_serves_all_but_the_last_step():
    """What an energy has in closed form is used: one value for a whole trajectory."""

    class Counted(Derived):
        alone = 0

        def gradient(self, x):
            self.alone += 1
            return self.inner.gradient(x)

    energy = Counted(correlated_gaussian())
    kernel, start = HMCKernel(7, 0.0), energy.inner.exact_sample(20)
    kernel.step(kernel.init(start, energy), energy, parameters(0.3), Draw())
    assert (energy.calls, energy.alone) == (2, 6)  # one value at the start


def test_jittered_lengths_have_the_mean_that_was_asked_for():
    lengths = [HMCKernel(10, jitter=0.5).length(i) for i in range(1000)]
    assert (min(lengths), max(lengths)) == (5, 15)
    assert sum(lengths) / 1000 == pytest.approx(10, rel=0.02)
    assert {HMCKernel(7, jitter=0).length(i) for i in range(20)} == {7}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_leapfrog": 0}, "num_leapfrog must be a whole number of at least 1"),
        ({"num_leapfrog": 2.5}, "whole number"),
        ({"jitter": 1.5}, "jitter must be at least 0 and at most 1"),
        ({"jitter": -0.1}, "jitter"),
    ],
)
def test_settings_out_of_range_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        HMCKernel(**settings)
