"""Langevin kernels against what is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from tests.mcmc.targets import TARGETS, Function, parameters
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.mcmc.kernels.langevin import LangevinKernel
from vaebench.mcmc.kernels.mala import MALAKernel
from vaebench.mcmc.state import Draw, Parameters


@pytest.mark.parametrize("temperature", [1.0, 0.25])
@pytest.mark.parametrize(("precision", "step_size"), [(1.0, 0.5), (4.0, 0.3)])
def test_unadjusted_langevin_has_its_known_bias(precision, step_size, temperature):
    """On N(0, 1/k) the stationary variance is T / (k (1 - eta k / 2))."""
    normal = Function(lambda x: (0.5 * precision * x.square().sum(-1), precision * x))
    biased = temperature / (precision * (1 - step_size * precision / 2))
    start = math.sqrt(biased) * torch.randn(200_000, 1, dtype=torch.float64)
    state, kernel = LangevinKernel().init(start, normal), LangevinKernel()
    settings = Parameters(torch.tensor(step_size).double(), torch.ones(1).double(), temperature)
    for _ in range(5):
        state, _ = kernel.step(state, normal, settings, Draw())
    square = state.position.square().flatten()
    error = float(square.std()) / math.sqrt(len(square))
    assert abs(float(square.mean()) - biased) <= 4.5 * error
    assert abs(temperature / precision - biased) > 9 * error


def test_mala_is_one_leapfrog_step():
    """With eta = epsilon^2 / 2, and the noise as momentum."""
    energy, epsilon = TARGETS["double_well"], 0.4
    start = energy.exact_sample(300)

    states = []
    for kernel, step_size, draw in (
        (MALAKernel(), epsilon**2 / 2, Draw(torch.Generator().manual_seed(1))),
        (HMCKernel(1, 0.0), epsilon, Draw(torch.Generator().manual_seed(1))),
    ):
        states.append(kernel.step(kernel.init(start, energy), energy, parameters(step_size, temperature=1.3), draw))
    (mala, mala_info), (hmc, hmc_info) = states
    assert 0 < int(mala_info.is_accepted.sum()) < 300
    torch.testing.assert_close(mala.position, hmc.position)
    torch.testing.assert_close(mala_info.energy_change, hmc_info.energy_change)
    torch.testing.assert_close(mala_info.total_energy, hmc_info.total_energy)
