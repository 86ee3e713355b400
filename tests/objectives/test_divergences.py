"""Rates: the closed forms against quadrature and torch, one sample against the closed form."""

import pytest
import torch
from torch.distributions import Independent, Laplace, Normal, kl_divergence

from vaebench.distributions.diagonal_gaussian import DiagonalGaussian, StandardNormal
from vaebench.objectives.divergences import rate, rate_per_dimension


@pytest.fixture
def q():
    return DiagonalGaussian(torch.randn(4, 3).double(), torch.randn(4, 3).double())


def test_a_pair_that_torch_knows_has_a_closed_form(q):
    found, how = rate(q, StandardNormal(torch.zeros(3).double()), q.rsample())
    assert how == "in closed form"
    by_torch = kl_divergence(Normal(q.mean, q.stddev), Normal(torch.zeros(3).double(), 1.0)).sum(-1)
    torch.testing.assert_close(found, by_torch)


def test_another_pair_is_estimated_from_the_draw_that_is_given(q):
    p = Independent(Laplace(torch.zeros(3).double(), torch.ones(3).double()), 1)
    z = q.rsample((20_000,))
    found, how = rate(q, p, z)
    assert how == "one sample"
    assert found.shape == (20_000, 4)
    x = torch.linspace(-30, 30, 200_001, dtype=torch.float64)[:, None, None]
    density = Normal(q.mean, q.stddev).log_prob(x)
    exact = (density.exp() * (density - Laplace(0.0, 1.0).log_prob(x))).sum(0).sum(-1) * (60 / 200_000)
    assert ((found.mean(0) - exact).abs() < 4 * found.std(0) / 20_000**0.5).all()


def test_the_rates_of_the_dimensions_are_those_of_torch_and_sum_to_the_rate(q):
    p = DiagonalGaussian(torch.randn(3).double(), torch.randn(3).double())
    found = rate_per_dimension(q, p)
    torch.testing.assert_close(found, kl_divergence(Normal(q.mean, q.stddev), Normal(p.mean, p.stddev)))
    torch.testing.assert_close(found.sum(-1), rate(q, p, q.mean)[0])


def test_dimensions_that_depend_on_each_other_have_no_rate_each(q):
    with pytest.raises(ValueError, match="Gaussians with diagonal covariance, got DiagonalGaussian and Independent"):
        rate_per_dimension(q, Independent(Normal(torch.zeros(3), 1.0), 1))
