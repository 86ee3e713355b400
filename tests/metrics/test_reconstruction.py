from __future__ import annotations

import math

import pytest
import torch

from vaebench.data.split import DataSplit
from vaebench.distributions.likelihoods import Gaussian
from vaebench.metrics.base import NotApplicableError
from vaebench.metrics.reconstruction import Reconstruction
from vaebench.models.vae import VAE
from vaebench.networks import MLP


def constant(picture):
    """A model that reconstructs every example as `picture`."""
    model = VAE(tuple(picture.shape), likelihood=Gaussian(), latent_dim=2, network=MLP(hidden_dims=()))
    with torch.no_grad():
        model.decoder[0].weight.zero_()
        model.decoder[0].bias.copy_(picture.flatten())
    return model


def test_by_hand():
    x = torch.stack([torch.full((1, 2, 2), 0.6), torch.full((1, 2, 2), 0.0)])
    found = Reconstruction()(constant(torch.full((1, 2, 2), 0.5)), DataSplit(x)).values
    assert found["mse"].value == pytest.approx((0.01 + 0.25) / 2, rel=1e-5)
    # 20 dB and 6.02 dB, averaged; the PSNR of the averaged MSE would be 8.86 dB.
    assert found["psnr_db"].value == pytest.approx((20 + 10 * math.log10(4)) / 2, rel=1e-5)
    assert found["mse"].standard_error == pytest.approx(0.12, rel=1e-5)


def test_goes_through_the_posterior_mean():
    model = VAE((4,), likelihood=Gaussian(), latent_dim=2, network=MLP(hidden_dims=()))
    split = DataSplit(torch.rand(9, 4))
    values = [Reconstruction()(model, split, seed=seed).values["mse"].value for seed in (0, 1)]
    assert values[0] == values[1]
    picture = model.decode(model.posterior(split.x).mean)
    assert values[0] == pytest.approx((picture - split.x).square().mean().item(), rel=1e-5)


def test_a_perfect_reconstruction_has_no_psnr():
    picture = torch.full((1, 2, 2), 0.5)
    found = Reconstruction()(constant(picture), DataSplit(picture.repeat(3, 1, 1, 1)))
    assert found.values["mse"].value == 0
    assert "psnr_db" not in found.values
    assert "infinite" in found.how


def test_data_outside_the_unit_interval_are_refused():
    with pytest.raises(NotApplicableError, match=r"leave \[0, 1\]"):
        Reconstruction()(constant(torch.zeros(4)), DataSplit(torch.full((2, 4), 1.5)))
