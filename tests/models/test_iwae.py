"""IWAE against the exact evidence, the ELBO at K = 1, and the gradient written out."""

import math

import pytest
import torch

from tests.models.linear_gaussian import linear_gaussian
from vaebench.core import Batch
from vaebench.models.iwae import IWAE
from vaebench.models.vae import VAE


@pytest.fixture
def x():
    return torch.randn(5, 6, dtype=torch.float64)


def loss_of(model, x, seed=1):
    torch.manual_seed(seed)
    return model.loss(Batch(x), 0)


def test_at_the_exact_posterior_the_loss_is_minus_the_log_evidence_for_any_k(x):
    for k in (1, 3, 10):
        model, log_evidence = linear_gaussian(IWAE, num_samples=k)
        torch.testing.assert_close(-loss_of(model, x).total, log_evidence(x).mean(), rtol=1e-6, atol=0)


def test_one_sample_is_the_elbo_with_the_rate_at_that_sample(x):
    model, _ = linear_gaussian(IWAE, log_var_shift=0.8, num_samples=1)
    loss = loss_of(model, x)
    torch.manual_seed(1)
    q = model.posterior(x)
    z = q.rsample()
    by_hand = -model.likelihood(z).log_prob(x) + q.log_prob(z) - model.prior().log_prob(z)
    torch.testing.assert_close(loss.total, by_hand.mean())


def test_the_bound_grows_with_k_towards_the_evidence(x):
    rows = x[:, None].expand(5, 2_000, 6).reshape(-1, 6)
    means, errors = [], []
    for k in (1, 2, 10, 100):
        torch.manual_seed(0)
        model, log_evidence = linear_gaussian(IWAE, log_var_shift=0.8, num_samples=k)
        with torch.no_grad():
            bound = (model._bound(Batch(rows)) - log_evidence(rows)).reshape(5, -1).mean(0)
        means.append(bound.mean())
        errors.append(bound.std() / len(bound) ** 0.5)
    for i in range(3):
        assert means[i + 1] - means[i] > 4 * (errors[i] ** 2 + errors[i + 1] ** 2) ** 0.5
    assert means[-1] < 4 * errors[-1]
    assert means[-1] > -0.05


def test_the_gradient_weighs_each_draw_by_its_normalised_weight(x):
    model, _ = linear_gaussian(IWAE, log_var_shift=0.8, num_samples=4)
    weight = model.posterior_head.linear.bias
    (found,) = torch.autograd.grad(loss_of(model, x).total, weight)
    torch.manual_seed(1)
    log_w = model.log_weights(x, 4)
    by_hand = -(log_w.softmax(0).detach() * log_w).sum(0).mean()
    torch.testing.assert_close(found, torch.autograd.grad(by_hand, weight)[0])


def test_validation_reports_the_elbo_and_the_bound_by_which_weights_are_compared(x):
    model, _ = linear_gaussian(IWAE, log_var_shift=0.8, num_samples=4)
    torch.manual_seed(1)
    loss = model.validation_loss(Batch(x), 0)
    torch.manual_seed(1)
    distortion, rate = model.distortion_and_rate(x)
    torch.testing.assert_close(loss.total, (distortion + rate).mean())
    bound = model.log_weights(x, 4).logsumexp(0) - math.log(4)
    torch.testing.assert_close(loss.terms["iwae_bound"], bound.mean())
    name, better = model.best_criterion
    assert (name in loss.terms, better) == (True, "max")


def test_with_the_same_seed_it_starts_as_the_vae():
    torch.manual_seed(3)
    first = IWAE((6,), likelihood="gaussian")
    torch.manual_seed(3)
    second = VAE((6,), likelihood="gaussian")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_refuses_no_sample():
    with pytest.raises(ValueError, match="num_samples must be a whole number of at least 1; got 0"):
        IWAE((6,), likelihood="gaussian", num_samples=0)
