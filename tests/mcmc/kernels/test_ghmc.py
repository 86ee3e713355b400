"""What persists in generalised Hamiltonian Monte Carlo. The protocol is elsewhere."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from tests.mcmc.targets import TARGETS, Function, parameters
from vaebench.mcmc.kernels.ghmc import GHMCKernel, GHMCState
from vaebench.mcmc.kernels.hmc import leapfrog
from vaebench.mcmc.state import Draw, Parameters

FOR_EVER = 1e30  # a time after which a momentum is forgotten


def moving(energy, x, slice_value: float) -> GHMCState:
    start = GHMCKernel().init(x, energy)
    v = torch.full_like(start.energy, slice_value)
    return GHMCState(**vars(start), momentum=torch.randn_like(x), slice=v)


def test_the_momentum_goes_on_where_it_went():
    """Never refreshed and never rejected, it follows one trajectory."""
    energy, settings = TARGETS["gaussian"], parameters(0.05)
    state = moving(energy, energy.exact_sample(50), 0.0)
    momentum = state.momentum * settings.inverse_mass_matrix.rsqrt()
    expected, end = leapfrog(energy, state, momentum, settings, 20)
    for _ in range(20):
        state, info = GHMCKernel(FOR_EVER).step(state, energy, settings, Draw())
        assert info.is_accepted.all()
    torch.testing.assert_close(state.position, expected.position)
    torch.testing.assert_close(state.momentum, end * settings.inverse_mass_matrix.sqrt())


def test_a_rejection_turns_back():
    energy, settings = TARGETS["double_well"], parameters(0.5)
    start = moving(energy, energy.exact_sample(400), 1 - 1e-9)
    state, info = GHMCKernel(FOR_EVER).step(start, energy, settings, Draw())
    rejected = ~info.is_accepted
    assert 50 < int(rejected.sum()) < 350
    assert torch.equal(state.position[rejected], start.position[rejected])
    torch.testing.assert_close(state.momentum[rejected], -start.momentum[rejected])
    state = replace(state, slice=torch.zeros_like(state.slice))
    back, _ = GHMCKernel(FOR_EVER).step(state, energy, settings, Draw())
    momentum = -start.momentum * settings.inverse_mass_matrix.rsqrt()
    expected, _ = leapfrog(energy, start, momentum, settings, 1)
    torch.testing.assert_close(back.position[rejected], expected.position[rejected])


@pytest.mark.parametrize(("step_size", "length"), [(0.1, 1.0), (0.5, 2.0)])
def test_a_share_of_the_momentum_is_forgotten(step_size, length, monkeypatch):
    """exp(-epsilon / tau) of it stays, and noise makes up for what goes."""
    flat = Function(lambda x: (x.sum(-1) * 0, x * 0))
    start = moving(flat, torch.zeros(100_000, 2, dtype=torch.float64), 0.0)
    state, _ = GHMCKernel(length).step(start, flat, parameters(step_size), Draw())
    torch.testing.assert_close(state.momentum.var(0), torch.ones(2, dtype=torch.float64), rtol=0.03, atol=0)
    monkeypatch.setattr(Draw, "normal", lambda self, like: torch.zeros_like(like))
    state, _ = GHMCKernel(length).step(start, flat, parameters(step_size), Draw())
    torch.testing.assert_close(state.momentum, math.exp(-step_size / length) * start.momentum)
    alpha = 1 - math.exp(-2 * step_size / length)
    torch.testing.assert_close(state.slice, torch.full_like(state.slice, alpha / 2))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_momentum_and_slice_stay_in_equilibrium(temperature):
    """From exact draws: N(0, I), U(-1, 1), and nothing to do with the energy."""
    energy = TARGETS["gaussian"]
    x = energy.mean + math.sqrt(temperature) * (energy.exact_sample(100_000) - energy.mean)
    state, settings = GHMCKernel().init(x, energy), parameters(0.7, temperature=temperature)
    for _ in range(6):
        state, info = GHMCKernel(2.0).step(state, energy, settings, Draw())
    assert 0.6 < float(info.acceptance_probability.mean()) < 0.97
    v, p = state.slice, state.momentum
    for values, expected in (
        (v, 0.0),
        (v.abs(), 0.5),
        (v.square(), 1 / 3),
        ((v.abs() - 0.5) * (state.energy / temperature - 1), 0.0),
        (p[:, 0] * p[:, 1], 0.0),
        (p.square().mean(-1), 1.0),
        ((p.square().sum(-1) - 2) * (v.abs() - 0.5), 0.0),
    ):
        assert abs(float(values.mean()) - expected) <= 4.5 * float(values.std()) / math.sqrt(len(values))


def test_one_parameter_set_per_chain():
    energy = TARGETS["gaussian"]
    state = moving(energy, energy.exact_sample(2), 0.3)
    sizes, lengths = torch.tensor([[0.1], [0.4]]).double(), torch.tensor([[1.0], [3.0]]).double()
    masses, seed = torch.tensor([[0.5, 1.0], [2.0, 0.3]]).double(), torch.Generator()
    both, _ = GHMCKernel().step(state, energy, Parameters(sizes, masses, 1.0, lengths), Draw(seed.manual_seed(1)))
    for i in range(2):
        own = Parameters(sizes[i, 0], masses[i], 1.0, lengths[i, 0])
        single, _ = GHMCKernel().step(state, energy, own, Draw(seed.manual_seed(1)))
        torch.testing.assert_close(single.position[i], both.position[i])
        torch.testing.assert_close(single.slice[i], both.slice[i])
