from __future__ import annotations

import pytest
import torch

from tests.metrics import linear_gaussian
from vaebench.data.split import DataSplit
from vaebench.distributions.likelihoods import Bernoulli
from vaebench.metrics.base import NotApplicableError
from vaebench.metrics.elbo import ELBO
from vaebench.models.vae import VAE
from vaebench.networks import MLP


def test_elbo_is_log_p_at_the_exact_posterior():
    model, split, exact = linear_gaussian.make(300)
    found = ELBO(num_samples=100)(model, split).values
    # 30,000 draws of z, each with variance D/2 or less in the distortion.
    assert found["elbo_nats"].value == pytest.approx(exact.mean().item(), abs=4 * (2.5 / 30_000) ** 0.5)
    assert found["elbo_nats"].value == pytest.approx(-found["distortion_nats"].value - found["rate_nats"].value)


def test_rate_is_the_closed_form():
    model, split, _ = linear_gaussian.make(30, mean_shift=0.4)
    mean, log_var = model.posterior(split.x)
    rate = 0.5 * (mean**2 + log_var.exp() - log_var - 1).sum(1)
    found = ELBO()(model, split, batch_size=7)
    assert found.values["rate_nats"].value == pytest.approx(rate.mean().item(), rel=1e-12)
    assert found.values["rate_nats"].standard_error == pytest.approx(rate.std().item() / 30**0.5, rel=1e-9)
    assert "closed form" in found.how


def test_standard_error_shrinks_with_posterior_samples_no_further_than_the_examples_allow():
    model, split, _ = linear_gaussian.make(100, log_var_shift=2.0)
    errors = [ELBO(n)(model, split).values["elbo_nats"].standard_error for n in (1, 100)]
    assert errors[1] < errors[0]


def test_grey_data_under_a_bernoulli_are_refused():
    model = VAE((4,), likelihood=Bernoulli(), latent_dim=2, network=MLP(hidden_dims=()))
    ELBO()(model, DataSplit(torch.ones(3, 4)))
    with pytest.raises(NotApplicableError, match="not on the grid of 2 levels"):
        ELBO()(model, DataSplit(torch.full((3, 4), 0.5)))


def test_no_posterior_samples_are_refused():
    with pytest.raises(ValueError, match="num_samples must be at least 1"):
        ELBO(0)
