"""Dense and low-rank mass matrices."""

from __future__ import annotations

import pytest
import torch

from tests.mcmc.targets import TARGETS
from vaebench.energies.analytic.gaussian import GaussianEnergy
from vaebench.mcmc.chains import moved, run_chains
from vaebench.mcmc.diagnostics import diagnose
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.mcmc.kernels.mala import MALAKernel
from vaebench.mcmc.whitening import DenseWhitening, LowRankWhitening, WhitenedEnergy, find_whitening
from vaebench.samplers.hmc import HamiltonianMonteCarlo
from vaebench.samplers.meads import MEADS

KINDS = ["dense", "low_rank"]


def ridge(num_dims: int = 8) -> GaussianEnergy:
    """Two directions far longer and shorter than the rest, along no axis, and axes of different scales."""
    numbers = torch.Generator().manual_seed(2)
    vectors = torch.linalg.qr(torch.randn(num_dims, num_dims, dtype=torch.float64, generator=numbers)).Q
    values = torch.ones(num_dims, dtype=torch.float64)
    values[0], values[1] = 100, 0.01
    scales = torch.logspace(-1, 1, num_dims, dtype=torch.float64)
    covariance = scales[:, None] * (vectors * values @ vectors.T) * scales
    return GaussianEnergy(torch.ones(num_dims, dtype=torch.float64), 0.5 * (covariance + covariance.T))


def maps(num_dims: int = 8) -> dict:
    x = ridge(num_dims).exact_sample(20_000)
    return {kind: find_whitening(x, kind, x) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_the_map_is_linear_and_its_parts_belong_together(kind):
    whitening = maps()[kind]
    z, g = torch.randn(2, 30, 8, dtype=torch.float64)
    matrix = whitening.to_position(torch.eye(8, dtype=torch.float64)).T  # columns A e_i
    torch.testing.assert_close(whitening.to_position(z), z @ matrix.T)
    torch.testing.assert_close(whitening.from_position(whitening.to_position(z)), z)
    torch.testing.assert_close(whitening.pull(g), g @ matrix)
    torch.testing.assert_close(whitening.push(whitening.pull(g)), g)


def test_the_covariance_is_learnt():
    energy = ridge()
    covariance = energy.scale @ energy.scale.T
    for kind, whitening in maps().items():
        assert isinstance(whitening, DenseWhitening if kind == "dense" else LowRankWhitening)
        matrix = whitening.to_position(torch.eye(8, dtype=torch.float64)).T
        round_covariance = torch.linalg.solve(matrix, torch.linalg.solve(matrix, covariance).T)
        condition = float(torch.linalg.cond(round_covariance))
        assert condition < (1.5 if kind == "dense" else 8)
        assert float(torch.linalg.cond(covariance)) > 1e4


@pytest.mark.parametrize("kind", KINDS)
def test_the_energy_has_its_gradient_in_the_new_coordinates(kind):
    energy, whitening = TARGETS["rosenbrock"], maps(2)[kind]
    z = whitening.from_position(energy.exact_sample(20))
    value, gradient = WhitenedEnergy(energy, whitening).value_and_grad(z)
    z.requires_grad_(True)
    again = energy(whitening.to_position(z))
    torch.testing.assert_close(value, again.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(again.sum(), z)[0])
    torch.testing.assert_close(WhitenedEnergy(energy, whitening).gradient(z.detach()), gradient)


def test_states_move_between_coordinates():
    energy, (first, second) = ridge(), maps().values()
    state = HMCKernel().init(energy.exact_sample(10), energy)
    there = moved(moved(state, None, first), first, second)
    back = moved(there, second, None)
    torch.testing.assert_close(back.position, state.position)
    torch.testing.assert_close(back.gradient, state.gradient)
    torch.testing.assert_close(there.gradient, WhitenedEnergy(energy, second).value_and_grad(there.position)[1])


@pytest.mark.parametrize("kernel", [HMCKernel(8), MALAKernel()])
@pytest.mark.parametrize("kind", KINDS)
def test_chains_on_a_ridge_mix_as_on_a_ball(kind, kernel):
    energy = ridge()
    runs = {}
    for mass_matrix in ("diagonal", kind):
        torch.manual_seed(0)
        chains = run_chains(kernel, energy, energy.start(32), num_draws=150, num_warmup=200, mass_matrix=mass_matrix)
        runs[mass_matrix] = diagnose(chains)
    assert min(runs[kind].ess_bulk) > 4 * min(runs["diagonal"].ess_bulk)
    for mean, error in zip(runs[kind].mean, runs[kind].mcse_mean, strict=True):
        assert abs(mean - 1) <= 4.5 * error
    value, gradient = energy.value_and_grad(chains.state.position)
    assert torch.equal(chains.positions[-1], chains.state.position)
    torch.testing.assert_close(chains.state.energy, value)
    torch.testing.assert_close(chains.state.gradient, gradient, rtol=1e-5, atol=1e-5)


def test_a_small_sample_is_shrunk_towards_no_correlation():
    x = torch.randn(5, 40, dtype=torch.float64)
    matrix = find_whitening(x, "dense", x).to_position(torch.eye(40, dtype=torch.float64)).T
    assert matrix.isfinite().all()
    assert float(torch.linalg.cond(matrix)) < 1e3


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda e: MEADS(e, mass_matrix="dense"), "diagonal for kernel=ghmc, which has scales of its own; got dense"),
        (
            lambda e: HamiltonianMonteCarlo(e, mass_matrix="dense", step_size=0.1),
            "learns none where step_size is given",
        ),
        (lambda e: HamiltonianMonteCarlo(e, mass_matrix="full"), "one of diagonal, dense, low_rank; got full"),
    ],
)
def test_a_mass_matrix_that_cannot_be_is_refused(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(TARGETS["gaussian"])
