"""The examples of a sampling guide for energy-based models, in our spelling: they run and give what they promise."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import vaebench.samplers
from vaebench.energies import BaseEnergyFunction, DoubleWellEnergy, GaussianEnergy
from vaebench.mcmc.kernels.kernel import Kernel, metropolis
from vaebench.mcmc.kernels.langevin import LangevinKernel
from vaebench.mcmc.state import Draw, Info, Parameters, State
from vaebench.samplers import MCMC, HamiltonianMonteCarlo, LangevinDynamics, MetropolisAdjustedLangevin
from vaebench.schedules import CosineScheduler, LinearScheduler, WarmupScheduler


class MLPEnergy(BaseEnergyFunction):
    def __init__(self, input_dim, hidden_dim=64):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(input_dim, hidden_dim), nn.SELU(), nn.Linear(hidden_dim, 1))

    def forward(self, x):
        return self.network(x).squeeze(-1)


def test_a_learned_energy_needs_a_forward_and_nothing_else():
    energy = MLPEnergy(2, 32)
    sampler = LangevinDynamics(energy_function=energy, step_size=0.1, temperature=1e-4, device=torch.device("cpu"))
    start = torch.randn(100, 2)
    assert sampler.sample(x=start, n_steps=20).shape == (100, 2)
    trajectory = sampler.sample(x=start, n_steps=20, return_trajectory=True)
    assert trajectory.shape == (100, 20, 2)
    thinned = sampler.sample(x=start, n_steps=20, thin=4, return_trajectory=True)
    assert thinned.shape == (100, 5, 2)
    assert sampler.sample(dim=2, n_samples=7, n_steps=2).shape == (7, 2)
    assert not trajectory.requires_grad


@pytest.mark.parametrize("cls", [LangevinDynamics, HamiltonianMonteCarlo, MetropolisAdjustedLangevin])
def test_all_three_take_the_same_words(cls):
    sampler = cls(energy_function=DoubleWellEnergy(), step_size=0.05)
    last, diagnostics = sampler.sample(x=torch.randn(10, 2), n_steps=6, thin=2, return_diagnostics=True)
    assert last.shape == (10, 2)
    assert {name: tuple(value.shape) for name, value in diagnostics.items()} == {
        "energy": (3, 10),
        "acceptance_probability": (3, 10),
        "is_divergent": (3, 10),
        "num_gradients": (10,),
    }
    torch.testing.assert_close(diagnostics["energy"][-1], DoubleWellEnergy()(last))


def test_the_last_state_is_the_trajectorys_last():
    sampler, x = MetropolisAdjustedLangevin(GaussianEnergy(), step_size=0.2), torch.zeros(5, 2)
    ends = []
    for wanted in (False, True):
        torch.manual_seed(3)
        ends.append(sampler.sample(x=x, n_steps=9, return_trajectory=wanted))
    assert torch.equal(ends[0], ends[1][:, -1])


def test_schedules_are_read_before_each_step():
    """At step k the value is v(k), and a call starts at v(0) again."""
    energy, x = GaussianEnergy([0.0], [[1.0]]), torch.ones(1, 1)
    schedule = LinearScheduler(start_value=0.5, end_value=0.1, n_steps=2)
    sampler = LangevinDynamics(energy, step_size=schedule, temperature=1e-12)
    expected = torch.tensor([0.5, 0.5 * 0.7, 0.5 * 0.7 * 0.9, 0.5 * 0.7 * 0.9 * 0.9])
    for _ in range(2):
        trajectory = sampler.sample(x=x, n_steps=4, return_trajectory=True)
        torch.testing.assert_close(trajectory.flatten(), expected, atol=1e-4, rtol=0)


def test_a_temperature_may_follow_a_schedule_too():
    sampler = LangevinDynamics(
        DoubleWellEnergy(barrier_height=5.0),
        step_size=WarmupScheduler(LinearScheduler(start_value=0.05, end_value=0.03, n_steps=100), 10, 0.01),
        temperature=CosineScheduler(start_value=0.09, end_value=1e-4, n_steps=200),
    )
    end = sampler.sample(x=torch.tensor([[-2.0, 0.3]]).repeat(200, 1), n_steps=400)
    assert (end.abs() - 1).abs().max() < 0.15  # cold: at the bottom of the wells


def test_a_schedule_that_leaves_its_range_is_refused():
    sampler = LangevinDynamics(GaussianEnergy(), step_size=LinearScheduler(0.1, -0.1, 10))
    with pytest.raises(ValueError, match="step_size, at transition 5, must be above 0"):
        sampler.sample(n_steps=20)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda s: s.sample(n_steps=0), "n_steps must be"),
        (lambda s: s.sample(n_samples=0), "n_samples must be"),
        (lambda s: s.sample(n_steps=5, thin=6), "thin must be"),
        (lambda s: s.sample(x=torch.zeros(3, 4)), "of 2 dimensions for GaussianEnergy, got 4"),
        (lambda s: s.sample(x=torch.zeros(3, 2), dim=5), "as dim says"),
        (lambda s: s.sample(x=torch.full((3, 2), torch.nan)), "finite energy"),
        (lambda s: LangevinDynamics(step_size=0.1).sample(n_steps=3), "call setup with a trained model"),
        (lambda s: LangevinDynamics(lambda x: x.sum(-1)), "derived from BaseEnergyFunction"),
        (lambda s: LangevinDynamics(MLPEnergy(2), step_size=0.0), "step_size must be above 0"),
        (lambda s: LangevinDynamics(MLPEnergy(2)).sample(4), "starting points"),
    ],
)
def test_a_mistake_is_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(LangevinDynamics(GaussianEnergy()))


@dataclass(frozen=True)
class RandomWalk(Kernel):
    """A sampler of one's own: random-walk Metropolis, in ten lines."""

    target_acceptance = 0.44

    def step(self, state: State, energy, parameters: Parameters, draw: Draw) -> tuple[State, Info]:
        x = state.position + parameters.step_size * draw.normal(state.position)
        proposal = State(x, *energy.value_and_grad(x), state.iteration)
        return metropolis(state, proposal, state.energy, proposal.energy, draw.log_uniform(state.energy))


def test_a_sampler_of_ones_own():
    sampler = MCMC(RandomWalk(), GaussianEnergy(), num_chains=32, num_warmup=200, num_draws=600)
    draws = sampler.sample(200)
    assert draws.z.shape == (200, 2)
    assert sampler.report.acceptance_rate == pytest.approx(0.44, abs=0.06)
    mean, error = torch.tensor(sampler.report.mean), torch.tensor(sampler.report.mcse_mean)
    assert (mean.abs() <= 4.5 * error).all()


def test_importing_the_package_imports_no_sampler():
    code = "import sys, vaebench.samplers, vaebench.energies; print([m for m in sys.modules if 'samplers.' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        vaebench.samplers.Nothing  # noqa: B018


def test_the_kernel_and_the_sampler_are_one():
    assert LangevinDynamics(GaussianEnergy()).kernel == LangevinKernel()
