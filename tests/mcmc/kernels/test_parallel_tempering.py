"""Swaps against their formula, replicas against exact draws, and modes that no single chain leaves."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from tests.mcmc.targets import KERNELS, TARGETS, parameters, step_size, tempered
from tests.mcmc.test_protocol import LIMIT, invariance, largest_z
from vaebench.energies import HarmonicEnergy
from vaebench.mcmc.chains import run_chains
from vaebench.mcmc.diagnostics import diagnose, ess_mean, verdict
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.mcmc.kernels.parallel_tempering import ParallelTemperingKernel, swap
from vaebench.mcmc.state import Draw, State


def test_swaps_follow_their_formula():
    energies = torch.tensor([[3.0, 1.0, 5.0, 4.0, 0.5], [2.0, 2.5, 1.0, 9.0, 3.0]], dtype=torch.float64)
    temperatures = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0], dtype=torch.float64)
    position = torch.arange(10, dtype=torch.float64)[:, None]
    replicas = State(position, energies.flatten(), 10 * position)
    expected = torch.tensor(
        [[[1.0, 0, 1.0, 0], [math.exp(-0.25), 0, 1.0, 0]], [[0, math.exp(-1.0), 0, 1.0], [0, 1.0, 0, 1.0]]]
    ).double()
    expected[0, 1, 2] = math.exp((1 / 4 - 1 / 8) * (1.0 - 9.0))
    for first in (0, 1):
        # just below the probability a pair swaps, just above it does not
        for factor, is_swapped in ((0.999, expected[first] > 0), (1.001, expected[first] == 1)):
            log_u = (factor * expected[first].clamp(min=1e-30)).log().clamp(max=0)
            moved, order, statistics = swap(replicas, temperatures, log_u, first)
            torch.testing.assert_close(statistics["swap_probability"], expected[first])
            rows = torch.arange(5).repeat(2, 1)
            for chain, pair in is_swapped.nonzero().tolist():
                rows[chain, [pair, pair + 1]] = torch.tensor([pair + 1, pair])
            assert torch.equal(order, rows)
            source = (rows + torch.tensor([[0], [5]])).flatten()
            assert torch.equal(moved.position, position[source])
            assert torch.equal(moved.energy, energies.flatten()[source])
            assert torch.equal(moved.gradient, 10 * position[source])


@pytest.mark.parametrize("inner", [name for name in KERNELS if name != "parallel_tempering"])
def test_any_kernel_moves_replicas_at_their_temperatures(inner):
    """Every replica stays an exact draw at its temperature."""
    move, n = ParallelTemperingKernel(KERNELS[inner], 3, 4.0), 300 if inner == "riemannian_hmc" else 1500
    energy, ladder = TARGETS["gaussian"], move.temperatures(torch.ones(1).double()).tolist()
    state = move.init(energy.exact_sample(n), energy)
    start = torch.stack([tempered("gaussian", t, n) for t in ladder], 1).flatten(0, 1)
    state = replace(state, replicas=move.inner.init(start, energy))
    size = 1e-3 if inner == "langevin" else step_size(inner, "gaussian")  # short: it has a bias
    for _ in range(2):
        state, _ = move.step(state, energy, parameters(size), Draw())
    assert move.is_exact == KERNELS[inner].is_exact
    for r, temperature in enumerate(ladder):
        fresh = tempered("gaussian", temperature, n)
        assert largest_z(start[r::3], state.replicas.position[r::3], energy, fresh) <= LIMIT
    torch.testing.assert_close(state.position, state.replicas.position[::3])


FAULTS = {
    "every pair swaps": lambda replicas, t, log_u, first: swap(replicas, t, log_u - 1e6, first),
    "the wrong sign": lambda replicas, t, log_u, first: swap(replicas, 1 / t, log_u, first),
    "temperatures once too often": lambda replicas, t, log_u, first: swap(replicas, t.square(), log_u, first),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_protocol_sees_a_wrong_swap(fault, monkeypatch):
    step_size("parallel_tempering", "double_well")
    monkeypatch.setattr("vaebench.mcmc.kernels.parallel_tempering.swap", FAULTS[fault])
    assert invariance("parallel_tempering", "double_well", 5)[0] > LIMIT


def test_chains_cross_between_modes_where_those_of_hmc_do_not():
    """On Himmelblau's function, all chains beginning in one mode, the masses of the quadrants come out right."""
    energy, size = TARGETS["himmelblau"], 0.05
    start = torch.tensor([[3.0, 2.0]], dtype=torch.float64).expand(16, -1)
    single = run_chains(HMCKernel(), energy, start, num_draws=100, num_warmup=20, step_size=size).positions
    assert ((single[..., 0] > 0) & (single[..., 1] > 0)).all()
    chains = run_chains(
        ParallelTemperingKernel(), energy, start, num_draws=150, num_warmup=50, thinning=2, step_size=size
    )
    x, report = chains.positions, diagnose(chains)
    masses = {(True, True): 0.340813, (False, True): 0.214558, (False, False): 0.159187, (True, False): 0.285442}
    for (right, up), mass in masses.items():
        inside = (((x[..., 0] > 0) == right) & ((x[..., 1] > 0) == up)).double().unsqueeze(-1)
        error = math.sqrt(mass * (1 - mass) / float(ess_mean(inside)))
        assert abs(float(inside.mean()) - mass) <= 4 * error
        assert error < 0.05
    assert report.kernel["round trips per 1000 transitions"] > 20
    assert not any("temperatures" in sentence for sentence in verdict(report))


def test_a_round_trip_is_from_cold_to_hot_and_back():
    move, energy = ParallelTemperingKernel(num_temperatures=3, max_temperature=1.0 + 1e-9), HarmonicEnergy().double()
    state, trips = move.init(energy.exact_sample(1), energy), []
    for _ in range(9):  # neighbours of one temperature always swap: abc, bac, bca, cba, cab, acb, abc, ...
        state, info = move.step(state, energy, parameters(0.1), Draw())
        trips.append(int(info.statistics["round_trips"]))
    assert trips == [0, 0, 1, 0, 1, 0, 1, 0, 1]


def test_a_ladder_that_is_too_coarse_is_reported():
    energy = HarmonicEnergy(num_dims=20).double()
    move = ParallelTemperingKernel(HMCKernel(3), num_temperatures=2, max_temperature=1000.0)
    chains = run_chains(move, energy, energy.exact_sample(4), num_draws=30, num_warmup=0, step_size=0.3)
    words = " ".join(verdict(diagnose(chains)))
    assert "temperatures 1 and 1e+03 swap in only" in words
    assert "raise num_temperatures" in words
    assert "No replica travelled" in words


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_temperatures": 1}, "num_temperatures must be a whole number of at least 2"),
        ({"max_temperature": 1.0}, "max_temperature must be above 1"),
        ({"inner": ParallelTemperingKernel()}, "inner must be a kernel that moves one replica"),
    ],
)
def test_settings_out_of_range_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        ParallelTemperingKernel(**settings)
