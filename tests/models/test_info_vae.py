"""InfoVAE and WAE-MMD: the losses by hand, and what is left where the MMD has no weight."""

import pytest
import torch

from vaebench.core import Batch
from vaebench.distributions.posteriors import DiagonalGaussianPosterior
from vaebench.models.info_vae import InfoVAE
from vaebench.models.vae import VAE
from vaebench.models.wae_mmd import WAEMMD
from vaebench.objectives.mmd import imq_mmd

SHAPE = (1, 4, 5)


def make(kind, **arguments):
    torch.manual_seed(0)
    return kind(SHAPE, likelihood="bernoulli", latent_dim=3, **arguments)


def loss_of(model, x):
    torch.manual_seed(1)
    return model.loss(Batch(x), 0)


@pytest.fixture
def x():
    return torch.rand(6, *SHAPE).round()


def test_info_vae_by_hand(x):
    model = make(InfoVAE, alpha=0.3, lambda_mmd=5.0)
    loss = loss_of(model, x)
    torch.manual_seed(1)
    _, _, z, distortion, rate = model.elbo_terms(x)
    mmd = imq_mmd(z, torch.randn(6, 3), 6.0)
    torch.testing.assert_close(loss.total, (distortion + 0.7 * rate).mean() + 4.3 * mmd)
    torch.testing.assert_close(loss.terms["mmd"], mmd)


def test_info_vae_without_weight_of_the_mmd_is_the_vae(x):
    torch.testing.assert_close(loss_of(make(InfoVAE, alpha=0.0, lambda_mmd=1.0), x).total, loss_of(make(VAE), x).total)


def test_wae_by_hand(x):
    model = make(WAEMMD, lambda_mmd=10.0)
    loss = loss_of(model, x)
    z = model.encode(x).mean
    torch.manual_seed(1)
    mmd = imq_mmd(z, torch.randn(6, 3), 6.0)
    torch.testing.assert_close(loss.total, -model.likelihood(z).log_prob(x).mean() + 10 * mmd)
    assert "rate" not in model.capabilities
    assert model.validation_loss(Batch(x), 0).terms.keys() == {"distortion"}


def test_wae_with_a_gaussian_posterior_has_an_elbo(x):
    model = make(WAEMMD, posterior=DiagonalGaussianPosterior())
    assert model.validation_loss(Batch(x), 0).terms.keys() == {"distortion", "rate"}


@pytest.mark.parametrize("kind", [InfoVAE, WAEMMD])
def test_training_brings_the_aggregate_posterior_to_the_prior(kind):
    torch.manual_seed(0)
    x = torch.rand(200, *SHAPE).round()
    model = make(kind, lambda_mmd=1000.0)
    with torch.no_grad():
        model.posterior_head.linear.bias.fill_(3.0)  # start far from it
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = loss_of(model, x).terms["mmd"]
    for step in range(60):
        optimizer.zero_grad()
        model.loss(Batch(x), step).total.backward()
        optimizer.step()
    assert loss_of(model, x).terms["mmd"] < 0.1 * before


@pytest.mark.parametrize(
    ("kind", "arguments", "sentence"),
    [
        (InfoVAE, {"alpha": 1.5}, "alpha must be"),
        (InfoVAE, {"alpha": 0.5, "lambda_mmd": 0.1}, "lambda_mmd must be at least 0.5 and finite; got 0.1"),
        (WAEMMD, {"lambda_mmd": -1.0}, "lambda_mmd must be at least 0 and finite; got -1"),
    ],
)
def test_refusals(kind, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(kind, **arguments)
