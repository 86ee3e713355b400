"""MIWAE and CIWAE: what they are at their ends, on a model whose evidence is exact."""

import math

import pytest
import torch

from tests.models.linear_gaussian import linear_gaussian
from vaebench.core import Batch
from vaebench.models.ciwae import CIWAE
from vaebench.models.miwae import MIWAE


@pytest.fixture
def x():
    return torch.randn(5, 6, dtype=torch.float64)


def loss_of(model, x):
    torch.manual_seed(1)
    return model.loss(Batch(x), 0).total


def log_w_of(model, x, num):
    torch.manual_seed(1)
    return model.log_weights(x, num)


@pytest.mark.parametrize(("kind", "arguments"), [(MIWAE, {"num_estimates": 3, "num_samples": 4}), (CIWAE, {})])
def test_at_the_exact_posterior_the_loss_is_minus_the_log_evidence(x, kind, arguments):
    model, log_evidence = linear_gaussian(kind, **arguments)
    torch.testing.assert_close(-loss_of(model, x), log_evidence(x).mean(), rtol=1e-6, atol=0)


def test_miwae_averages_bounds_and_has_elbo_and_iwae_at_its_ends(x):
    for M, K in ((1, 6), (6, 1), (2, 3)):
        model, _ = linear_gaussian(MIWAE, log_var_shift=0.8, num_estimates=M, num_samples=K)
        log_w = log_w_of(model, x, M * K)
        bounds = [log_w[m * K : (m + 1) * K].exp().mean(0).log() for m in range(M)]
        torch.testing.assert_close(-loss_of(model, x), torch.stack(bounds).mean())


def test_ciwae_has_iwae_at_zero_and_the_elbo_at_one(x):
    for beta in (0.0, 0.3, 1.0):
        model, _ = linear_gaussian(CIWAE, log_var_shift=0.8, beta=beta, num_samples=6)
        log_w = log_w_of(model, x, 6)
        iwae = (log_w.logsumexp(0) - math.log(6)).mean()
        torch.testing.assert_close(-loss_of(model, x), beta * log_w.mean() + (1 - beta) * iwae)


@pytest.mark.parametrize(("kind", "name"), [(MIWAE, "miwae_bound"), (CIWAE, "ciwae_bound")])
def test_validation_reports_the_elbo_and_the_bound(x, kind, name):
    model, _ = linear_gaussian(kind, log_var_shift=0.8, num_samples=4)
    torch.manual_seed(1)
    loss = model.validation_loss(Batch(x), 0)
    torch.manual_seed(1)
    distortion, rate = model.distortion_and_rate(x)
    torch.testing.assert_close(loss.total, (distortion + rate).mean())
    torch.testing.assert_close(loss.terms[name], model._bound(Batch(x)).mean())
    assert model.best_criterion == (name, "max")


@pytest.mark.parametrize(
    ("kind", "arguments", "sentence"),
    [
        (MIWAE, {"num_estimates": 0}, "num_estimates must be a whole number of at least 1; got 0"),
        (MIWAE, {"num_samples": 0}, "num_samples must be a whole number of at least 1; got 0"),
        (CIWAE, {"beta": 1.5}, "beta must be at least 0 and at most 1; got 1.5"),
        (CIWAE, {"num_samples": 0}, "num_samples must be a whole number of at least 1; got 0"),
    ],
)
def test_refusals(kind, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        kind((6,), likelihood="gaussian", **arguments)
