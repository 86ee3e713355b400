"""The posterior of the logistic regression against published moments, by importance sampling and by chains."""

from __future__ import annotations

import math

import pytest
import torch

from vaebench.energies import LogisticRegressionEnergy
from vaebench.mcmc.chains import run_chains
from vaebench.mcmc.diagnostics import diagnose
from vaebench.mcmc.kernels.hmc import HMCKernel

ENERGY = LogisticRegressionEnergy().double()


def laplace() -> tuple[torch.Tensor, torch.Tensor]:
    """The mode by Newton's method, and a factor of the inverse Hessian there."""
    w = torch.zeros(25, dtype=torch.float64)
    for _ in range(8):
        p = torch.sigmoid(ENERGY.features @ w)
        hessian = (ENERGY.features.mT * (p * (1 - p))) @ ENERGY.features + torch.eye(25)
        w = w - torch.linalg.solve(hessian, ENERGY.gradient(w[None])[0])
    assert ENERGY.gradient(w[None]).abs().max() < 1e-9
    return w, torch.linalg.cholesky(torch.linalg.inv(hessian))


def test_published_moments_agree_with_importance_sampling():
    mode, factor = laplace()
    noise = torch.randn(20_000, 25, dtype=torch.float64)
    x = mode + 1.05 * noise @ factor.mT
    log_w = torch.cat([-ENERGY.energy(part) for part in x.split(2000)]) + 0.5 * noise.square().sum(-1)
    weights = torch.softmax(log_w, 0)
    assert 1 / float(weights.square().sum()) > 3000
    reference = ENERGY.reference
    mean = weights @ x
    error = (weights.square() @ (x - mean).square()).sqrt()
    assert ((mean - reference.mean).abs() <= 4.5 * torch.hypot(error, reference.mean_error.double())).all()
    deviation = (weights @ (x - mean).square()).sqrt()
    assert (deviation / reference.standard_deviation - 1).abs().max() < 0.05


def test_chains_find_the_published_moments():
    chains = run_chains(HMCKernel(6), ENERGY, 0.1 * torch.randn(16, 25).double(), num_draws=60, num_warmup=80)
    report = diagnose(chains)
    assert max(report.r_hat) < 1.1
    error = torch.hypot(torch.tensor(report.mcse_mean), ENERGY.reference.mean_error)
    assert ((torch.tensor(report.mean) - ENERGY.reference.mean).abs() <= 4.5 * error).all()
    ratio = torch.tensor(report.standard_deviation) / ENERGY.reference.standard_deviation
    assert (ratio - 1).abs().max() < 6 / math.sqrt(2 * min(report.ess_bulk))


def test_another_prior_has_no_published_moments():
    wide = LogisticRegressionEnergy(prior_scale=10.0).double()
    assert wide.reference is None
    x = torch.randn(3, 25, dtype=torch.float64)
    torch.testing.assert_close(ENERGY.energy(x) - wide.energy(x), 0.495 * x.square().sum(-1))
    gradient = torch.func.vmap(torch.func.grad(lambda w: wide.energy(w[None])[0]))(x)
    torch.testing.assert_close(wide.gradient(x), gradient)
    with pytest.raises(ValueError, match="prior_scale must be above 0"):
        LogisticRegressionEnergy(prior_scale=0.0)
