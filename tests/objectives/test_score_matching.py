"""Score matching against closed forms on a Gaussian, U(x) = k |x - m|^2 / 2, whose score is -k (x - m)."""

from __future__ import annotations

import math

import pytest
import torch

from vaebench.energies.learned.mlp import MLPEnergy
from vaebench.objectives.score_matching import denoising_score_matching, exact_score_matching, sliced_score_matching


def gaussian(k, m=0.0):
    return lambda x: k * (x - m).square().sum(-1) / 2


def data(n=50, d=8, scale=1.0):
    torch.manual_seed(0)
    return scale * torch.randn(n, d, dtype=torch.float64)


def test_on_a_gaussian_the_exact_objective_is_in_closed_form():
    x, k, m = data(), 1.7, 0.3
    norm, trace = exact_score_matching(gaussian(k, m), x)
    torch.testing.assert_close(norm, k**2 * (x - m).square().sum(-1) / 2)
    torch.testing.assert_close(trace, torch.full((50,), -8 * k).double())


@pytest.mark.parametrize("sliced", [False, True])
def test_its_minimum_is_the_datas_precision(sliced):
    """Data of variance 1/4 in 8 dimensions: k = 1 gives d / 8 - d, and the best k is 4."""
    x = data(200_000, 8, 0.5)
    k = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)

    def objective(k):
        if not sliced:
            return exact_score_matching(gaussian(k), x[:50_000])
        return sliced_score_matching(gaussian(k), x, torch.where(torch.randn(1, *x.shape) < 0, -1.0, 1.0).double())

    assert float(sum(objective(torch.tensor(1.0).double())).mean().detach()) == pytest.approx(8 / 8 - 8, abs=0.02)
    (slope,) = torch.autograd.grad(sum(objective(k)).mean(), k)
    assert abs(float(slope)) < 4.5 * 4 / math.sqrt(50_000)  # of k |x|^2 - d, whose deviation is 4


@pytest.mark.parametrize("projection", ["signs", "normal"])
def test_slices_estimate_the_trace(projection):
    energy = MLPEnergy(3, (16,), activation="tanh").double()
    x = data(1, 3)
    _, exact = exact_score_matching(energy, x)
    v = torch.randn(300, 1, 3, dtype=torch.float64)
    v = torch.where(v < 0, -1.0, 1.0).double() if projection == "signs" else v
    singles = torch.stack([sliced_score_matching(energy, x, one[None])[1].detach() for one in v])
    assert abs(float(singles.mean() - exact.detach())) <= 4.5 * float(singles.std()) / math.sqrt(300) + 1e-12
    _, together = sliced_score_matching(energy, x, v)
    torch.testing.assert_close(together.detach(), singles.mean(0))


def test_denoising_learns_the_smoothed_density():
    """Its minimum over k is 1 / (v + sigma^2) for data of variance v."""
    sigma, scale = 0.6, 0.8
    x = data(400_000, 1, scale)
    noise = torch.randn_like(x)
    best = 1 / (scale**2 + sigma**2)
    k = torch.tensor(best, dtype=torch.float64, requires_grad=True)
    error = denoising_score_matching(gaussian(k), x, noise, sigma)
    (slope,) = torch.autograd.grad(error.mean(), k)
    noisy = (x + sigma * noise).squeeze(-1)
    per_example = (-sigma * noisy * (noise.squeeze(-1) - sigma * best * noisy)).detach()
    assert abs(float(slope)) <= 4.5 * float(per_example.std()) / math.sqrt(len(x))
    # and its value there is that of the part of the noise that cannot be known
    assert float(error.detach().mean()) == pytest.approx(scale**2 * best / 2, rel=0.02)


def test_weights_get_gradients_and_values_need_none():
    energy, x = MLPEnergy(3, (8,)), torch.randn(5, 3)
    noise = torch.randn(5, 3)

    def totals():
        return [
            sum(exact_score_matching(energy, x)).mean(),
            sum(sliced_score_matching(energy, x, torch.ones(2, 5, 3))).mean(),
            denoising_score_matching(energy, x, noise, 0.1).mean(),
        ]

    with torch.no_grad():
        expected = totals()
    for total, value in zip(totals(), expected, strict=True):
        torch.testing.assert_close(total.detach(), value)
        assert all(g.isfinite().all() and g.any() for g in torch.autograd.grad(total, list(energy.parameters())))
