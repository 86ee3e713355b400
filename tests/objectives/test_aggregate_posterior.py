"""The aggregate posterior's density: the weights, the exact case, and what is unbiased."""

import math

import pytest
import torch
from torch.distributions import Normal

from vaebench.distributions.diagonal_gaussian import DiagonalGaussian
from vaebench.objectives.aggregate_posterior import aggregate_densities, log_weights


@pytest.fixture
def q():
    return DiagonalGaussian(2 * torch.randn(6, 3).double(), torch.randn(6, 3).double())


def test_stratified_weights_are_those_of_the_appendix_and_sum_to_one():
    W = log_weights(5, 40, "stratified", torch.zeros(1).double()).exp()
    torch.testing.assert_close(W.sum(1), torch.ones(5).double())
    torch.testing.assert_close(W.diagonal(), torch.full((5,), 1 / 40).double())
    other = (40 - 4) / (40 * 4)
    assert [(row == pytest.approx(other)) for row in W.diagonal(1)] == [True] * 4
    assert W[4, 0].item() == pytest.approx(other)
    assert W[0, 2].item() == pytest.approx(1 / 4)


def test_weighted_weights_are_one_over_n_m():
    W = log_weights(5, 40, "weighted", torch.zeros(1).double())
    torch.testing.assert_close(W, torch.full((5, 5), -math.log(200)).double())


def test_a_batch_of_all_examples_gives_the_aggregate_posterior(q):
    z = q.rsample()
    each = Normal(q.mean, q.stddev).log_prob(z[:, None])  # (6, 6, 3)
    exact = each.sum(-1).logsumexp(1) - math.log(6)
    product = (each.logsumexp(1) - math.log(6)).sum(-1)
    biased = aggregate_densities(z, q, 6, "weighted")
    torch.testing.assert_close(biased.log_q, exact - math.log(6))
    torch.testing.assert_close(biased.log_q_product, product - 3 * math.log(6))


def test_stratified_is_the_aggregate_posterior_on_average_over_which_other_weighs_less(q):
    z = q.rsample()
    exact = Normal(q.mean, q.stddev).log_prob(z[0]).sum(-1).exp().mean()
    estimates = []
    for other in range(1, 6):
        order = torch.tensor([0, other, *(j for j in range(1, 6) if j != other)])
        found = aggregate_densities(z[order], DiagonalGaussian(q.mean[order], q.log_var[order]), 6, "stratified")
        estimates.append(found.log_q[0].exp())
    torch.testing.assert_close(torch.stack(estimates).mean(), exact)


def test_one_example_cannot_be_stratified(q):
    one = DiagonalGaussian(q.mean[:1], q.log_var[:1])
    with pytest.raises(ValueError, match="needs at least two examples in every batch, got one"):
        aggregate_densities(one.rsample(), one, 10, "stratified")
