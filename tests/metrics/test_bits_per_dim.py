from __future__ import annotations

import math

import pytest
import torch

from tests.metrics import linear_gaussian
from vaebench.data.split import DataSplit
from vaebench.distributions.likelihoods import Bernoulli, Binomial
from vaebench.metrics.base import NotApplicableError
from vaebench.metrics.bits_per_dim import BitsPerDim
from vaebench.metrics.bounds import bits_per_dim
from vaebench.metrics.elbo import ELBO
from vaebench.metrics.importance_bound import ImportanceBound
from vaebench.models.vae import VAE
from vaebench.networks import MLP


def indifferent(likelihood, dim=6):
    """A model whose posterior is the prior and whose decoder says logit 0 whatever z is."""
    model = VAE((dim,), likelihood=likelihood, latent_dim=2, network=MLP(hidden_dims=()))
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    return model


@pytest.mark.parametrize(("num_samples", "name"), [(1, "bits_per_dim"), (20, "bits_per_dim_20")])
def test_a_fair_coin_costs_one_bit(num_samples, name):
    x = (torch.rand(50, 6) < 0.3).float()
    found = BitsPerDim(num_samples)(indifferent(Bernoulli()), DataSplit(x)).values[name]
    assert found.value == pytest.approx(1, rel=1e-6)
    assert found.standard_error < 1e-6


def test_counts_by_hand():
    k = torch.tensor([[0.0, 2.0, 4.0]])
    found = BitsPerDim()(indifferent(Binomial(4), 3), DataSplit(k / 4)).values["bits_per_dim"]
    # Binomial(4, 1/2): 1/16, 6/16, 1/16
    assert found.value == pytest.approx((4 + math.log2(16 / 6) + 4) / 3, rel=1e-6)


def test_agrees_with_the_bounds_that_it_is_made_of():
    model = VAE((6,), likelihood=Bernoulli(), latent_dim=2, network=MLP(hidden_dims=(5,)))
    split = DataSplit((torch.rand(40, 6) < 0.3).float())
    elbo = ELBO()(model, split).values["elbo_nats"]
    bits = BitsPerDim()(model, split).values["bits_per_dim"]
    assert bits.value == pytest.approx(-elbo.value / (6 * math.log(2)))
    assert bits.standard_error == pytest.approx(elbo.standard_error / (6 * math.log(2)))
    bound = ImportanceBound(30, 10)(model, split).values["importance_bound_30_nats"]
    bits = BitsPerDim(30, 10)(model, split).values["bits_per_dim_30"]
    assert bits.value == pytest.approx(-bound.value / (6 * math.log(2)))


def test_from_nats():
    assert bits_per_dim(torch.tensor(-8 * math.log(2)), 4).item() == pytest.approx(2)


def test_densities_are_refused_with_the_reason():
    model, split, _ = linear_gaussian.make(3)
    with pytest.raises(NotApplicableError, match="Gaussian is a density"):
        BitsPerDim()(model, split)


def test_data_off_the_grid_are_refused():
    with pytest.raises(NotApplicableError, match="not on the grid of 5 levels"):
        BitsPerDim()(indifferent(Binomial(4), 3), DataSplit(torch.tensor([[0.0, 0.25, 0.3]])))
