from __future__ import annotations

import doctest
import math

import pytest
import torch

from tests.mcmc.targets import TARGETS, Function
from vaebench.energies.analytic.gaussian import GaussianEnergy
from vaebench.mcmc import adaptation
from vaebench.mcmc.adaptation import (
    DualAveraging,
    WarmUp,
    Window,
    WindowAdaptation,
    have_arrived,
    reasonable_step_size,
    regularised,
    window_ends,
)
from vaebench.mcmc.chains import run_chains
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.mcmc.state import Draw, Parameters, State


def test_examples():
    assert doctest.testmod(adaptation).failed == 0


@pytest.mark.parametrize("num_warmup", [20, 60, 149, 150, 151, 200, 300, 500, 1000, 2000])
def test_windows_cover_the_middle(num_warmup):
    first, ends = window_ends(num_warmup)
    assert 0 < first < ends[0]
    assert ends == sorted(set(ends))
    assert ends[-1] == num_warmup - (50 if num_warmup >= 150 else int(0.1 * num_warmup))


def test_dual_averaging_finds_the_crossing():
    """On a known acceptance curve, with noise, it settles where the curve meets the target."""
    averaging = DualAveraging(torch.tensor(1.0, dtype=torch.float64), 0.8)
    for _ in range(3000):
        rate = torch.exp(-averaging.step_size) + 0.05 * torch.randn((), dtype=torch.float64)
        averaging.update(rate.clamp(0, 1))
    assert float(averaging.average) == pytest.approx(-math.log(0.8), rel=0.05)


def test_dual_averaging_is_the_papers_recursion():
    averaging = DualAveraging(torch.tensor(0.5, dtype=torch.float64), 0.8)
    rates = [0.9, 0.1, 0.6, 0.95]
    mu, error, log_average = math.log(0.5), 0.0, 0.0
    for t, rate in enumerate(rates, start=1):
        averaging.update(torch.tensor(rate, dtype=torch.float64))
        error += 0.8 - rate
        # the paper's running mean with weight 1/(t + t0) is the sum over t + t0: one form checks the other
        log_step = mu - math.sqrt(t) / 0.2 * error / (t + 10)
        log_average = t**-0.75 * log_step + (1 - t**-0.75) * log_average
    assert float(averaging.step_size) == pytest.approx(math.exp(log_step))
    assert float(averaging.average) == pytest.approx(math.exp(log_average))


def test_a_window_holds_the_variances_of_all_and_of_each():
    x = 5 + torch.randn(30, 8, 3, dtype=torch.float64) * torch.tensor([0.1, 1.0, 10.0])
    window = Window(x[0])
    for position in x:
        window.update(State(position, position.square().sum(-1), position))
    variance, n = x.flatten(0, 1).var(0), 240
    pooled = regularised(*window.pooled(torch.ones(8, 1, dtype=torch.bool)), like=x)
    torch.testing.assert_close(pooled, variance * n / (n + 5) + 1e-3 * 5 / (n + 5))
    some = torch.tensor([True, False] * 4)
    torch.testing.assert_close(window.pooled(some[:, None])[0], x[:, some].flatten(0, 1).var(0))
    torch.testing.assert_close(window.own()[0], x.var(0))
    energy = x.square().sum(-1)
    mean, spread = window.energy_moments()
    torch.testing.assert_close(mean, energy.mean(0))
    torch.testing.assert_close(spread, energy.var(0, correction=0))


def test_chains_on_the_way_have_not_arrived():
    energy = 3 + torch.randn(25, 64, dtype=torch.float64)
    assert have_arrived(energy.mean(0), energy.var(0)).all()
    energy[:, 7] += torch.linspace(500, 100, 25)
    energy[:, 11] += 50
    arrived = have_arrived(energy.mean(0), energy.var(0))
    assert (~arrived).nonzero().flatten().tolist() == [7, 11]
    assert have_arrived(energy[:, :1].mean(0), energy[:, :1].var(0)).all()


@pytest.mark.parametrize("num_warmup", [300, 1000])
@pytest.mark.parametrize("noise", [0.01, 0.1])
def test_chains_from_a_wide_start_arrive(noise, num_warmup):
    """A regression with unknown noise: deviations of noise / 10 and 0.07, 64 chains from U(-2, 2)."""
    x = torch.randn(100, 5, dtype=torch.float64)
    y = x @ torch.randn(5, dtype=torch.float64) + noise * torch.randn(100, dtype=torch.float64)

    def posterior(z):
        residuals, log_noise = y - z[:, :5] @ x.T, z[:, 5]
        squares, weight = residuals.square().sum(-1), torch.exp(-2 * log_noise)
        gradient = torch.cat([-(residuals @ x) * weight[:, None], (100 - squares * weight)[:, None]], -1)
        return 100 * log_noise + 0.5 * squares * weight + z.square().sum(-1) / 200, gradient + z / 100

    start = 4 * torch.rand(64, 6, dtype=torch.float64) - 2
    kernel, energy = HMCKernel(), Function(posterior)
    chains = run_chains(kernel, energy, start, num_draws=20, num_warmup=num_warmup, target_acceptance=0.8)
    exact = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
    assert ((chains.positions[-1][:, :5] - exact).abs() < noise).all()
    assert float(chains.acceptance_probability.mean()) == pytest.approx(0.8, abs=0.06)


def test_the_step_size_goes_on_where_it_was_when_a_window_ends():
    """Not from the first guess: neither the scalar nor dual averaging's centre."""
    energy = TARGETS["gaussian"]
    state = HMCKernel(3).init(energy.exact_sample(16), energy)
    learner = WindowAdaptation(Parameters(torch.tensor(1e-3).double(), torch.ones(2).double()), WarmUp(1000, 0.8))
    sizes = []
    for _ in range(400):
        state, info = HMCKernel(3).step(state, energy, learner.parameters, Draw())
        learner.update(state, info)
        sizes.append(float(learner.parameters.step_size.median()))
    for end in (150, 250):
        assert 0.3 < sizes[end] / sizes[end - 20] < 3  # and not a hundred times shorter


def test_the_first_step_size_is_where_acceptance_crosses():
    energy = TARGETS["gaussian"]
    move = HMCKernel(5)
    state = move.init(energy.exact_sample(200), energy)
    ones = torch.ones(2, dtype=torch.float64)
    for guess in (1e-4, 100.0):
        step_size = reasonable_step_size(move, state, energy, Parameters(torch.tensor(guess).double(), ones), Draw())
        rates = [
            float(
                move.step(state, energy, Parameters(step_size * factor, ones), Draw())[1].acceptance_probability.mean()
            )
            for factor in (0.5, 2)
        ]
        assert float(rates[0]) > 0.8 > float(rates[1])


def test_an_energy_that_accepts_every_step_is_refused():
    flat, move = Function(lambda x: (torch.zeros(len(x)).double(), torch.zeros_like(x))), HMCKernel(2)
    ones = torch.ones(2, dtype=torch.float64)
    with pytest.raises(ValueError, match="integrable"):
        reasonable_step_size(move, move.init(torch.zeros(4, 2).double(), flat), flat, Parameters(ones[0], ones), Draw())


def test_learns_the_scales_and_hits_the_target_acceptance():
    scales = torch.tensor([0.01, 1.0, 30.0], dtype=torch.float64)
    energy = GaussianEnergy(torch.zeros(3, dtype=torch.float64), torch.diag(scales.square()))
    move = HMCKernel(8)
    chains = run_chains(move, energy, energy.exact_sample(16), num_draws=300, num_warmup=300, target_acceptance=0.8)
    torch.testing.assert_close(chains.parameters.inverse_mass_matrix, scales.square(), rtol=0.35, atol=1e-4)
    assert float(chains.acceptance_probability.mean()) == pytest.approx(0.8, abs=0.05)
    assert not chains.is_divergent.any()


def test_adaptation_is_frozen_after_warm_up():
    energy = TARGETS["double_well"]
    move = HMCKernel(5)
    state = move.init(energy.exact_sample(8), energy)
    start = Parameters(torch.tensor(0.1, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    learner = WindowAdaptation(start, WarmUp(100, 0.8))
    seen = []
    for _ in range(120):
        state, info = move.step(state, energy, learner.parameters, Draw())
        learner.update(state, info)
        seen.append(learner.parameters)
    assert not torch.equal(seen[98].step_size, seen[99].step_size)
    assert seen[99].step_size.ndim == 0
    last = torch.stack([parameters.step_size.flatten()[0] for parameters in seen[80:99]])
    assert not (last == seen[99].step_size).any()  # the average, and not the last one
    for later in seen[100:]:
        assert torch.equal(later.step_size, seen[99].step_size)
        assert torch.equal(later.inverse_mass_matrix, seen[99].inverse_mass_matrix)


def test_one_chain_far_out_comes_back():
    """Its energy rises so fast that it cannot move at the step that suits the other fifteen."""
    energy = TARGETS["double_well"]
    start = energy.exact_sample(16)
    start[3] = 6.0
    chains = run_chains(HMCKernel(5), energy, start, num_draws=50, num_warmup=200)
    assert (chains.positions[:, 3].abs() < 2.5).all()
    assert (chains.positions[:, 3].std(0) > 0).all()
