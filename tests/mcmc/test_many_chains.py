"""Warm-ups that read kernels' parameters off many chains: MEADS, ChEES, and the microcanonical one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from tests.mcmc.targets import KERNELS, TARGETS, changes
from vaebench.energies.analytic.gaussian import GaussianEnergy
from vaebench.energies.analytic.harmonic import HarmonicEnergy
from vaebench.mcmc.adaptation import WarmUp
from vaebench.mcmc.chains import fixed_parameters, run_chains
from vaebench.mcmc.chees import chees_gradient
from vaebench.mcmc.diagnostics import diagnose
from vaebench.mcmc.kernels.chees_hmc import ChEESHMCKernel, TrajectoryInfo
from vaebench.mcmc.kernels.ghmc import GHMCKernel
from vaebench.mcmc.kernels.mclmc import MCLMCKernel
from vaebench.mcmc.meads import fold_parameters, largest_eigenvalue
from vaebench.mcmc.state import Draw, Info

NEW = ["ghmc", "chees_hmc", "adjusted_mclmc"]


def scaled_gaussian(num_dims: int = 10) -> GaussianEnergy:
    deviations = torch.linspace(0.3, 3, num_dims, dtype=torch.float64)
    return GaussianEnergy(torch.zeros(num_dims, dtype=torch.float64), torch.diag(deviations.square()))


@pytest.mark.parametrize("num_rows", [40_000, 4])
def test_the_largest_eigenvalue_is_estimated_without_bias(num_rows):
    """tr S^2 / tr S; with a handful of rows too, on average."""
    deviations = torch.tensor([3.0, 1.0, 1.0, 0.5, 0.1], dtype=torch.float64)
    x = deviations * torch.randn(160_000 // num_rows, num_rows, 5, dtype=torch.float64)
    expected = float(deviations.pow(4).sum() / deviations.square().sum())
    squares = torch.stack([largest_eigenvalue(rows) * rows.square().sum(-1).mean() for rows in x[:2000]]).mean()
    traces = x[:2000].square().sum(-1).mean()
    assert float(squares / traces) == pytest.approx(expected, rel=0.1)


def test_a_fold_says_what_the_paper_says():
    energy = scaled_gaussian(5)
    x = energy.exact_sample(50_000)
    step_size, length, *variance = fold_parameters(x, energy.value_and_grad(x)[1], 10_000).tolist()
    assert variance == pytest.approx([0.09, 0.950625, 2.7225, 5.405625, 9.0], rel=0.05)
    assert step_size == pytest.approx(0.5, rel=0.02)  # standardised, the largest eigenvalue is one
    assert length == pytest.approx(1.0, rel=0.02)
    assert float(fold_parameters(x, x, 2)[1]) == pytest.approx(2 * float(fold_parameters(x, x, 2)[0]))  # t epsilon


def test_folds_are_set_by_other_folds():
    """Chains that stand far apart from the others do not widen their own scales."""
    energy = scaled_gaussian(3)
    x = energy.exact_sample(64)
    learner = GHMCKernel().adaptation(
        GHMCKernel().init(x, energy), energy, fixed_parameters(x, 0.1, 1.0)(0), WarmUp(100), Draw()
    )
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    folds = order.view(4, 16)
    for fold, source in ((1, 0), (0, 3)):
        own = learner.parameters.inverse_mass_matrix[folds[fold]]
        torch.testing.assert_close(own, x[folds[source]].var(0).expand_as(own))


@pytest.mark.parametrize("time", [0.4, 1.2, 2.0, 2.8])
def test_the_gradient_of_chees_is_that_of_the_harmonic_oscillator(time):
    """On N(0, I) the criterion is D sin^2 t, and its derivative by log t is D t sin 2t."""
    x, v = torch.randn(2, 200_000, 3, dtype=torch.float64)
    cos, sin = math.cos(time), math.sin(time)
    ones = torch.ones(len(x), dtype=torch.float64)
    trajectory = {"start": x, "end": x * cos + v * sin, "end_momentum": v * cos - x * sin}
    info = TrajectoryInfo(
        ones, ones > 0, ones < 0, 0 * ones, ones, ones.long(), **trajectory, time=torch.tensor(time).double()
    )
    whole = float(chees_gradient(info, torch.ones(3).double()))
    assert whole == pytest.approx(3 * time * math.sin(2 * time), abs=0.03 * 3 * time)
    # in other units it is the same, and a chain that went astray has no say
    scaled = replace(info, start=2 * info.start, end=2 * info.end, end_momentum=info.end_momentum / 2)
    assert float(chees_gradient(scaled, 4 * torch.ones(3).double())) == pytest.approx(whole)
    rates, end = ones.clone(), info.end.clone()
    rates[0], end[0] = 0, math.nan
    assert float(chees_gradient(replace(info, acceptance_probability=rates, end=end), torch.ones(3).double())) == (
        pytest.approx(whole, abs=0.02)
    )


@pytest.mark.parametrize("deviation", [1.0, 0.05])
def test_chees_finds_the_length_that_is_best(deviation):
    """With lengths even in (0, T), E sin^2 is largest where tan 2T = 2T: T = 2.247 deviations."""
    energy = HarmonicEnergy(10, 1 / deviation**2)
    start, settings = energy.exact_sample(64), {"num_draws": 100, "num_warmup": 400}
    chains = run_chains(ChEESHMCKernel(), energy, start, target_acceptance=0.98, **settings)
    assert float(chains.parameters.length) / deviation == pytest.approx(2.247, rel=0.2)
    # at longer steps every length is rounded up to whole ones: the best T is nearer to a quarter of a period
    chains = run_chains(ChEESHMCKernel(), energy, start, **settings)
    assert float(chains.parameters.length) / deviation == pytest.approx(math.pi / 2, rel=0.2)
    harmonic_mean = 1 / (1 / chains.acceptance_probability).mean(1)
    assert float(harmonic_mean.mean()) == pytest.approx(0.651, abs=0.07)


@pytest.mark.parametrize("kernel", NEW)
def test_adapted_parameters_leave_exact_draws_invariant(kernel):
    energy, move = TARGETS["double_well"], KERNELS[kernel]
    parameters = run_chains(move, energy, energy.start(64).double(), num_draws=1, num_warmup=150).parameters
    start = energy.exact_sample(50_000)
    state = move.init(start, energy)
    for _ in range(3):
        state, info = move.step(state, energy, parameters, Draw())
    for name, z in changes(energy, start, state.position).items():
        assert (z.abs() <= 4.5).all(), name
    assert 0.4 < float(info.acceptance_probability.mean()) < 0.995


@pytest.mark.parametrize("kernel", [*NEW, "mclmc"])
def test_adaptation_is_frozen_after_warm_up(kernel):
    energy, move = scaled_gaussian(4), KERNELS[kernel]
    x = 2 * energy.exact_sample(16)
    state, draw = move.init(x, energy), Draw()
    learner = move.adaptation(state, energy, fixed_parameters(x, 0.1, 1.0)(0), WarmUp(40, move.target_acceptance), draw)
    seen = []
    for _ in range(45):
        state, info = move.step(state, energy, learner.parameters, draw)
        learner.update(state, info)
        seen.append(learner.parameters)
    assert seen[38] is not seen[39]
    assert all(later is seen[39] for later in seen[40:])
    assert seen[39].step_size.ndim == 0


@pytest.mark.parametrize("kernel", [*NEW, "mclmc"])
def test_scales_of_a_gaussian_are_learnt_and_its_moments_right(kernel):
    energy = scaled_gaussian()
    thinning = 4 if kernel in ("ghmc", "mclmc") else 1
    start = 3 * energy.exact_sample(64)
    chains = run_chains(KERNELS[kernel], energy, start, num_draws=150, num_warmup=300, thinning=thinning)
    report = diagnose(chains)
    bias = 0.06 if kernel == "mclmc" else 0.0
    for mean, error in zip(report.mean, report.mcse_mean, strict=True):
        assert abs(mean) <= 4.5 * error
    squares = chains.positions.square()
    fake = replace(chains, positions=squares)
    for mean, error, expected in zip(
        diagnose(fake).mean, diagnose(fake).mcse_mean, torch.linspace(0.3, 3, 10).square().tolist(), strict=True
    ):
        assert abs(mean - expected) <= 4.5 * error + bias * expected
    if kernel != "chees_hmc":  # which has none
        torch.testing.assert_close(
            chains.parameters.inverse_mass_matrix, torch.linspace(0.3, 3, 10).double().square(), rtol=0.4, atol=0
        )


def test_the_step_of_mclmc_has_the_energy_error_that_was_asked_for():
    energy = scaled_gaussian()
    chains = run_chains(MCLMCKernel(), energy, energy.exact_sample(64), num_draws=1, num_warmup=300)
    state, errors = chains.state, []
    for _ in range(30):
        state, info = MCLMCKernel().step(state, energy, chains.parameters, Draw())
        errors.append(info.energy_change)
    assert 2e-4 < float(torch.stack(errors).square().mean()) / 10 < 2e-3


def test_one_chain_has_nothing_to_compare_with():
    energy = scaled_gaussian(3)
    with pytest.raises(ValueError, match="num_chains must be at least 2 for MEADS"):
        run_chains(GHMCKernel(), energy, energy.exact_sample(1), num_draws=5, num_warmup=10)


def test_what_a_trajectory_tells_is_a_report_like_any_other():
    energy = scaled_gaussian(3)
    _, info = ChEESHMCKernel().step(
        ChEESHMCKernel().init(energy.exact_sample(5), energy),
        energy,
        fixed_parameters(torch.ones(5, 3).double(), 0.1, 1.0)(0),
        Draw(),
    )
    assert isinstance(info, Info)
    assert float(info.time) == pytest.approx(0.5)  # h = 1/2 of a length of one
