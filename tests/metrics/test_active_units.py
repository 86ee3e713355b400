from __future__ import annotations

import math

import pytest
import torch

from vaebench.data.split import DataSplit
from vaebench.distributions.likelihoods import Gaussian
from vaebench.distributions.quantizers.vq import VectorQuantizer
from vaebench.metrics.active_units import ActiveUnits, variance_and_error
from vaebench.metrics.base import NotApplicableError
from vaebench.models.vae import VAE
from vaebench.models.vq_vae import VQVAE
from vaebench.networks import MLP, Conv


def scaled(*scales):
    """A model whose posterior means are the data, each dimension times its scale, plus a constant."""
    dim = len(scales)
    model = VAE((dim,), likelihood=Gaussian(), latent_dim=dim, network=MLP(hidden_dims=()))
    with torch.no_grad():
        model.posterior_head.linear.weight.zero_()
        model.posterior_head.linear.weight[:dim] = torch.diag(torch.tensor(scales))
        model.posterior_head.linear.bias.fill_(3.0)
    return model


def test_counts_the_dimensions_whose_mean_varies():
    x = torch.tensor([[-1.0], [1.0]]).repeat(500, 5)  # variance 1, and 1000 / 999 with n - 1
    model = scaled(1.0, 0.2, 0.101, 0.099, 0.0)  # variances 1, 0.04, 0.0102, 0.0098, 0
    found = ActiveUnits()(model, DataSplit(x), batch_size=300)
    assert found.values["active_units"].value == 3
    assert found.values["active_units"].n == 1000
    variances = torch.tensor([1.0, 0.2, 0.101, 0.099, 0.0]).double().square() * 1000 / 999
    torch.testing.assert_close(
        torch.tensor(found.details["variance_per_dimension"], dtype=torch.float64), variances, rtol=1e-5, atol=1e-9
    )
    assert ActiveUnits(threshold=0.05)(model, DataSplit(x)).values["active_units"].value == 1
    assert "of 5 dimensions" in found.values["active_units"].unit


def test_a_grid_of_vectors_has_as_many_dimensions_as_numbers():
    sizes = {"num_embeddings": 8, "embedding_dim": 3, "kmeans_iterations": 0}
    model = VQVAE(
        (1, 8, 8), likelihood="bernoulli", network=Conv((4,), hidden_dim=0), quantizer=VectorQuantizer(**sizes)
    )
    found = ActiveUnits(threshold=0.0)(model, DataSplit(torch.rand(20, 1, 8, 8)))
    assert found.values["active_units"].unit == f"of {math.prod(model.latent_shape)} dimensions"


def test_error_of_a_variance():
    n = 400
    draws = torch.randn(n, 3000, dtype=torch.float64)
    variance, error = variance_and_error(draws)
    torch.testing.assert_close(variance, draws.var(0))
    assert error.mean().item() == pytest.approx(math.sqrt(2 / n), rel=0.03)
    assert variance.std().item() == pytest.approx(error.mean().item(), rel=0.06)  # 3000 columns: 4 s.e. are 5 %


def test_only_dimensions_at_the_threshold_are_uncertain():
    x = torch.randn(2000, 3)
    sure = ActiveUnits()(scaled(1.0, 1.0, 0.0), DataSplit(x)).values["active_units"]
    assert sure.standard_error < 1e-6
    unsure = ActiveUnits()(scaled(1.0, 0.1, 0.1), DataSplit(x)).values["active_units"]
    assert 0.3 < unsure.standard_error < 0.72  # at most sqrt(2 / 4)


def test_one_example_has_no_variance():
    with pytest.raises(NotApplicableError, match="at least two"):
        ActiveUnits()(scaled(1.0), DataSplit(torch.zeros(1, 1)))


def test_a_negative_threshold_is_refused():
    with pytest.raises(ValueError, match="threshold"):
        ActiveUnits(-0.1)
