"""The posterior head: one bound on the log-variance, seen by sampling and by the divergence."""

import pytest
import torch
from torch.distributions import kl_divergence

from vaebench.distributions.diagonal_gaussian import DiagonalGaussian
from vaebench.distributions.posteriors import DiagonalGaussianPosterior


def _head(log_var, mean=0.0, bound=10.0):
    """A head with one latent dimension that returns `mean` and, before the bound, `log_var`."""
    head = DiagonalGaussianPosterior(bound).build(num_features=2, latent_dim=1)
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.copy_(torch.tensor([mean, log_var]))
    return head


@pytest.mark.parametrize("raw", [-1e6, -30.0, -1.0, 0.0, 0.5, 30.0, 1e6])
def test_sampling_and_kl_see_the_same_bounded_log_variance(raw):
    q = _head(raw, mean=0.3)(torch.zeros(4, 2))
    expected = 10 * torch.tanh(torch.tensor(raw) / 10)
    torch.testing.assert_close(q.log_var, expected.expand(4, 1))
    torch.manual_seed(2)
    z = q.rsample()
    torch.manual_seed(2)
    torch.testing.assert_close(z, 0.3 + (0.5 * expected).exp() * torch.randn(4, 1))
    zeros = torch.zeros(1)
    rate = kl_divergence(q, DiagonalGaussian(zeros, zeros))
    torch.testing.assert_close(rate, 0.5 * (0.3**2 + expected.exp() - expected - 1).expand(4))
    assert rate.isfinite().all()


def test_bound_is_the_identity_near_zero_and_keeps_a_gradient_where_a_clamp_would_not():
    head = _head(0.01)
    torch.testing.assert_close(head(torch.zeros(1, 2)).log_var, torch.tensor([[0.01]]), rtol=1e-5, atol=0)
    head = _head(11.0)  # beyond the bound
    head(torch.zeros(1, 2)).log_var.sum().backward()
    assert head.linear.bias.grad[1] > 0.3


def test_mean_and_log_var_are_not_exchanged():
    mean, log_var = _head(log_var=-1.0, mean=5.0)(torch.zeros(2, 2))
    torch.testing.assert_close(mean, torch.full((2, 1), 5.0))
    assert (log_var < 0).all()


def test_float32_under_autocast_and_float64_stays():
    head = DiagonalGaussianPosterior().build(8, 3)
    features = torch.randn(5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = head(features)
        rate = kl_divergence(q, DiagonalGaussian(torch.zeros(3), torch.zeros(3)))
        z = q.rsample()
    assert {q.mean.dtype, q.log_var.dtype, rate.dtype, z.dtype} == {torch.float32}
    assert head.double()(features.double()).mean.dtype == torch.float64


@pytest.mark.parametrize("bound", [0.0, -1.0])
def test_refuses_a_bound_that_bounds_nothing(bound):
    with pytest.raises(ValueError, match="log_var_bound must be above 0 and finite"):
        DiagonalGaussianPosterior(log_var_bound=bound)
