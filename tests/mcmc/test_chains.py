from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from tests.mcmc.targets import TARGETS, Function, changes, step_size
from vaebench.energies.analytic.harmonic import HarmonicEnergy
from vaebench.energies.base import BaseEnergyFunction
from vaebench.mcmc.chains import fixed_parameters, run_chains
from vaebench.mcmc.diagnostics import diagnose, ess_mean, verdict
from vaebench.mcmc.kernels.ghmc import GHMCKernel
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.mcmc.kernels.kernel import Kernel, Report, metropolis
from vaebench.mcmc.state import Draw, State, dimensions_first
from vaebench.schedules import LinearScheduler


class Gumbel(BaseEnergyFunction):
    """Independent standard Gumbel coordinates: skewed, with mean Euler's constant and variance pi^2 / 6."""

    def forward(self, x):
        return (x + torch.exp(-x)).sum(-1)

    def start(self, num_chains):
        return 2 * torch.randn(num_chains, 2, dtype=torch.float64)


def test_a_skewed_target_within_four_standard_errors():
    energy = Gumbel()
    chains = run_chains(HMCKernel(4), energy, energy.start(8), num_draws=1000, target_acceptance=0.8)
    report = diagnose(chains)
    assert verdict(report) == []
    x = chains.positions
    truth = {1: 0.5772156649, 2: math.pi**2 / 6 + 0.5772156649**2}
    for power, expected in truth.items():
        moment = x**power
        error = moment.flatten(0, 1).std(0) / ess_mean(moment).sqrt()
        assert ((moment.mean((0, 1)) - expected).abs() <= 4 * error).all()
    error = torch.tensor(report.mcse_mean, dtype=torch.float64)
    assert ((torch.tensor(report.mean, dtype=torch.float64) - truth[1]).abs() <= 4 * error).all()


def test_adapted_parameters_leave_exact_draws_invariant():
    energy = TARGETS["double_well"]
    move = HMCKernel(5)
    parameters = run_chains(move, energy, energy.exact_sample(16), num_draws=1, num_warmup=150).parameters
    start = energy.exact_sample(50_000)
    state = move.init(start, energy)
    for _ in range(3):
        state, _ = move.step(state, energy, parameters, Draw())
    for name, z in changes(energy, start, state.position).items():
        assert (z.abs() <= 4.5).all(), name


def test_shapes_counts_and_thinning():
    energy, size = TARGETS["gaussian"], step_size("hmc", "gaussian")
    seen = []
    move = HMCKernel(4, jitter=0)
    chains = run_chains(
        move,
        energy,
        energy.exact_sample(3),
        num_draws=10,
        num_warmup=7,
        thinning=2,
        step_size=size,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert chains.positions.shape == (10, 3, 2)
    assert chains.acceptance_probability.shape == chains.total_energy.shape == (20, 3)
    assert chains.num_gradients.tolist() == [1 + 27 * 4] * 3
    assert seen[0] == (1, 27)
    assert seen[-1] == (27, 27)
    assert torch.equal(chains.positions[-1], chains.state.position)
    assert float(chains.parameters.step_size) == size


def test_thinning_keeps_every_nth_state():
    energy, size = TARGETS["gaussian"], step_size("hmc", "gaussian")
    start = energy.exact_sample(3)
    runs = []
    for thinning in (1, 3):
        generator = torch.Generator().manual_seed(1)
        move = HMCKernel(4)
        settings = dict(num_draws=12 // thinning, num_warmup=2, thinning=thinning, step_size=size)
        runs.append(run_chains(move, energy, start, generator=generator, **settings).positions)
    assert torch.equal(runs[0][2::3], runs[1])


def test_the_same_generator_gives_the_same_chains():
    energy = TARGETS["double_well"]
    start = energy.exact_sample(3)
    first, second = (
        run_chains(
            HMCKernel(4),
            energy,
            start,
            num_draws=5,
            num_warmup=30,
            generator=torch.Generator().manual_seed(seed),
        ).positions
        for seed in (5, 5)
    )
    assert torch.equal(first, second)


def test_chains_that_are_stuck_in_two_modes_are_reported():
    energy = TARGETS["double_well"]
    start = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
    chains = run_chains(HMCKernel(1), energy, start, num_draws=100, num_warmup=0, step_size=0.02)
    assert any("R-hat" in sentence for sentence in verdict(diagnose(chains)))


def test_an_absurd_step_size_is_reported():
    energy = TARGETS["rosenbrock"]
    chains = run_chains(HMCKernel(5), energy, energy.exact_sample(4), num_draws=50, num_warmup=0, step_size=10.0)
    report = diagnose(chains)
    assert report.num_divergences > 150
    assert report.acceptance_rate < 0.01
    words = " ".join(verdict(report))
    assert "diverged" in words
    assert "accepted" in words


def test_tuning_without_warm_up_is_refused():
    with pytest.raises(ValueError, match="set step_size"):
        run_chains(HMCKernel(), Function(lambda x: (x.sum(-1), x)), torch.zeros(2, 2), num_draws=5, num_warmup=0)


class RandomWalk(Kernel):
    """Steps that follow no gradient."""

    target_acceptance = 0.234
    uses_gradients = False

    def step(self, state, energy, parameters, draw):
        x = state.position + parameters.step_size * draw.normal(state.position)
        proposal = State(x, energy.energy(x), state.gradient, state.iteration)
        settings = dict(temperature=parameters.temperature, num_gradients=0)
        return metropolis(state, proposal, state.energy, proposal.energy, draw.log_uniform(state.energy), **settings)


def test_a_kernel_without_gradients_has_no_divergences_and_no_gradients():
    """A proposal far outside is an ordinary rejection, and there is nothing to count."""
    energy = TARGETS["rosenbrock"]
    chains = run_chains(RandomWalk(), energy, energy.exact_sample(4), num_draws=20, num_warmup=0, step_size=50.0)
    assert chains.is_divergent.any()
    report = diagnose(chains)
    assert report.num_divergences is None
    assert report.num_gradients is None
    assert not any("diverged" in sentence for sentence in verdict(report))


def test_the_statistics_of_a_kernel_are_averaged_over_transitions_after_warm_up():
    class Counting(HMCKernel):
        def step(self, state, energy, parameters, draw):
            moved, info = super().step(state, energy, parameters, draw)
            return moved, replace(info, statistics={"iteration": torch.full_like(info.num_gradients, state.iteration)})

        def report(self, means):
            return Report({"iteration": float(means["iteration"].mean())}, ["All is lost."])

    energy = TARGETS["gaussian"]
    chains = run_chains(
        Counting(2), energy, energy.exact_sample(3), num_draws=4, num_warmup=5, thinning=2, step_size=0.1
    )
    report = diagnose(chains)
    assert report.kernel == {"iteration": pytest.approx((5 + 12) / 2)}
    assert report.as_dict()["kernel"] == report.kernel
    assert "All is lost." in verdict(report)


class Watched(HarmonicEnergy):
    calls = 0

    def value_and_grad(self, x):
        self.calls += 1
        return super().value_and_grad(x)


@pytest.mark.parametrize(
    ("kernel", "settings", "sentence"),
    [
        (HMCKernel(), {"step_size": LinearScheduler(0.1, -0.1, 40)}, "step_size, at transition 20, must be above 0"),
        (HMCKernel(), {"temperature": LinearScheduler(1.0, -1.0, 10)}, "temperature, at transition 5, must be above 0"),
        (HMCKernel(LinearScheduler(5, -5, 30)), {}, "num_leapfrog must be .* at least 1.*, at transition 1"),
        (HMCKernel(4, LinearScheduler(0.5, 2, 6)), {}, "jitter must be .*, at transition 3"),
        (GHMCKernel(LinearScheduler(1, -1, 10)), {"step_size": 0.1}, "length must be above 0.*, at transition 5"),
    ],
)
def test_a_schedule_that_leaves_its_range_is_refused_before_anything_is_done(kernel, settings, sentence):
    energy = Watched(2)
    with pytest.raises(ValueError, match=sentence):
        run_chains(kernel, energy, energy.exact_sample(4), num_draws=100, num_warmup=20, **settings)
    assert energy.calls == 0


def test_any_parameter_of_a_kernel_takes_a_schedule():
    """The number of leapfrog steps counts the gradients; warm-up is on the schedule, too."""
    energy = HarmonicEnergy(2)
    steps = LinearScheduler(2, 12, 10)
    chains = run_chains(
        HMCKernel(steps, jitter=0), energy, energy.exact_sample(4), num_draws=10, num_warmup=5, step_size=0.1
    )
    assert chains.num_gradients.tolist() == [1 + sum(round(steps(t)) for t in range(15))] * 4
    assert chains.kernel == HMCKernel(12, jitter=0)


@pytest.mark.parametrize(("num_dims", "is_turned"), [(1, False), (2, True), (16, True), (17, False)])
def test_few_dimensions_are_laid_out_by_dimension(num_dims, is_turned):
    """And noise with them: its numbers are still independent."""
    x = dimensions_first(torch.zeros(20_000, num_dims, dtype=torch.float64))
    assert (x.stride() == (1, 20_000)) is (is_turned or num_dims == 1) or not is_turned
    noise = Draw().normal(x)
    assert noise.shape == x.shape
    assert noise.stride() == x.stride()
    torch.testing.assert_close(noise.T.cov(), torch.eye(num_dims).double().squeeze(), rtol=0, atol=0.05)
    energy = HarmonicEnergy(num_dims)
    state, _ = HMCKernel().step(HMCKernel().init(x, energy), energy, fixed_parameters(x, 0.1, 1.0)(0), Draw())
    assert state.position.stride() == x.stride()


def test_memory_does_not_grow_with_transitions_unless_draws_are_kept():
    energy = HarmonicEnergy(2)
    chains = run_chains(HMCKernel(), energy, energy.exact_sample(4), num_draws=50, step_size=0.1, keep=False)
    assert chains.positions.numel() == chains.acceptance_probability.numel() == chains.total_energy.numel() == 0
    assert int(chains.num_gradients[0]) > 50
