"""The point mass: the limit of a Gaussian whose variance goes to zero, without a density."""

import pytest
import torch
from torch.distributions import kl_divergence

from vaebench.distributions.diagonal_gaussian import DiagonalGaussian
from vaebench.distributions.point_mass import DeterministicPosterior, PointMass


def test_it_is_the_gaussian_of_variance_zero():
    mean = torch.randn(4, 3, requires_grad=True)
    q = PointMass(mean)
    unpacked_mean, log_var = q
    gaussian = DiagonalGaussian(unpacked_mean, log_var)
    for draw in q.rsample((5,)), gaussian.rsample((5,)):
        assert torch.equal(draw, mean.expand(5, 4, 3))
    assert torch.equal(q.variance, gaussian.variance)
    assert q.batch_shape == (4,)
    assert q.event_shape == (3,)
    q.rsample((5,)).sum().backward()
    assert torch.equal(mean.grad, torch.full((4, 3), 5.0))
    assert not q.sample().requires_grad


def test_it_has_no_density():
    q = PointMass(torch.zeros(2, 3))
    p = DiagonalGaussian(torch.zeros(3), torch.zeros(3))
    for call in (lambda: q.log_prob(torch.zeros(2, 3)), lambda: kl_divergence(q, p)):
        with pytest.raises(ValueError, match="choose model/posterior=diagonal_gaussian"):
            call()


def test_the_posterior_is_linear_in_the_features():
    head = DeterministicPosterior().build(5, 3).double()
    features = torch.randn(4, 5, dtype=torch.float64)
    q = head(features)
    torch.testing.assert_close(q.mean, features @ head.linear.weight.T + head.linear.bias)
    assert head.bfloat16()(features.bfloat16()).mean.dtype == torch.float32
