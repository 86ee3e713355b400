"""beta-TCVAE: weights of one are the ELBO, each weight on its own term, and the size of the training split."""

import math

import pytest
import torch

from vaebench.core import Batch
from vaebench.distributions.diagonal_gaussian import DiagonalGaussian
from vaebench.models.beta_tc_vae import BetaTCVAE
from vaebench.objectives.aggregate_posterior import aggregate_densities

SHAPE = (1, 4, 5)


def make(**arguments):
    torch.manual_seed(0)
    return BetaTCVAE(SHAPE, likelihood="bernoulli", latent_dim=3, **arguments)


@pytest.fixture
def x():
    return torch.rand(6, *SHAPE).round()


def loss_of(model, x):
    torch.manual_seed(1)
    return model.loss(Batch(x), 0)


class Train:
    def __len__(self):
        return 50


@pytest.mark.parametrize("estimator", ["weighted", "stratified"])
def test_with_weights_of_one_it_is_the_elbo_with_the_rate_at_the_draw(x, estimator):
    model = make(beta=1.0, estimator=estimator)
    model.before_training(Train())
    loss = loss_of(model, x)
    torch.manual_seed(1)
    q, p, z, distortion, _ = model.elbo_terms(x)
    torch.testing.assert_close(loss.total, (distortion + q.log_prob(z) - p.log_prob(z)).mean())


def test_the_terms_by_hand_with_the_number_of_training_examples(x):
    model = make(alpha=0.5, beta=6.0, gamma=2.0)
    model.before_training(Train())
    assert model.state_dict()["num_examples"] == 50
    loss = loss_of(model, x)
    torch.manual_seed(1)
    q, p, z, distortion, _ = model.elbo_terms(x)
    log_q, log_product = aggregate_densities(z, q, 50)
    terms = loss.terms
    torch.testing.assert_close(terms["mutual_information"], (q.log_prob(z) - log_q).mean())
    torch.testing.assert_close(terms["total_correlation"], (log_q - log_product).mean())
    torch.testing.assert_close(terms["dimension_wise_kl"], (log_product - p.log_prob(z)).mean())
    weighted = 0.5 * terms["mutual_information"] + 6 * terms["total_correlation"] + 2 * terms["dimension_wise_kl"]
    torch.testing.assert_close(loss.total, distortion.mean() + weighted)


def test_independent_dimensions_have_no_total_correlation():
    """Over a grid the aggregate posterior is a product; along a diagonal it is not."""
    axis = torch.linspace(-3, 3, 12)
    grid, line = torch.cartesian_prod(axis, axis), axis[:, None].expand(12, 2)
    for means, low, high in ((grid, -1e-4, 1e-4), (line, 1.0, math.log(12))):
        q = DiagonalGaussian(means.double(), torch.full_like(means, -3.0).double())
        found = aggregate_densities(q.rsample(), q, len(means), "weighted")
        bias = (1 - 2) * math.log(len(means))  # of the joint density, less that of two marginals
        assert low < (found.log_q - found.log_q_product).mean() + bias < high


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"beta": -1.0}, "beta must be at least 0 and finite; got -1"),
        ({"estimator": "mss"}, "estimator must be weighted or stratified; got 'mss'"),
    ],
)
def test_refusals(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(**arguments)
