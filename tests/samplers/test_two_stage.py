"""The second stage against a linear-Gaussian one, whose likelihood is known, and its surface."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.samplers.test_samplers import LinearModel
from vaebench.core import Batch, Draws
from vaebench.distributions.diagonal_gaussian import DiagonalGaussian
from vaebench.models.vae import VAE
from vaebench.samplers import BaseSampler, RHVAESampler, SecondDecoder, SecondEncoder, TwoStageSampler
from vaebench.samplers.two_stage import SecondStage

WEIGHT, GAMMA = 0.8, 0.3


class Decode(nn.Module):
    """u -> 0.8 u."""

    def forward(self, u, context=None):
        return WEIGHT * u


class Posterior(nn.Module):
    """The exact q(u|z) for z = 0.8 u + 0.3 e."""

    def forward(self, z, context=None):
        variance = WEIGHT**2 + GAMMA**2
        return DiagonalGaussian(WEIGHT / variance * z, torch.full_like(z, math.log(GAMMA**2 / variance)))


def linear_stage() -> SecondStage:
    stage = SecondStage(SecondEncoder(2, 4, 1), SecondDecoder(2, 4, 1), min_gamma=0.01).double()
    stage.encoder, stage.decoder = Posterior(), Decode()
    stage.raw_log_gamma.data.fill_(stage.bound * math.atanh(math.log(GAMMA) / stage.bound))
    return stage


def test_at_the_exact_posterior_the_elbo_is_the_likelihood():
    """-loss = log N(z; 0, (0.8^2 + 0.3^2) I), constants included."""
    torch.manual_seed(0)
    stage, num = linear_stage(), 100_000
    assert stage.log_gamma.exp().item() == pytest.approx(GAMMA)
    z = torch.tensor([0.7, -1.1]).double()
    losses = torch.stack([stage.loss(Batch(z.expand(num // 10, 2)), 0).total for _ in range(10)]).detach()
    exact = -0.5 * (z.square() / (WEIGHT**2 + GAMMA**2) + math.log(2 * math.pi * (WEIGHT**2 + GAMMA**2))).sum()
    error = float(losses.std()) / math.sqrt(10)
    assert abs(float(losses.mean() + exact)) < 4.5 * error
    assert error < 0.01


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_draws_have_the_variance_of_both_stages(temperature):
    torch.manual_seed(1)
    sampler = TwoStageSampler(hidden_dim=4, num_layers=1, temperature=temperature).setup(LinearModel())
    sampler.density = linear_stage()
    sampler.density.mean, sampler.density.scale = torch.tensor([1.0, 2.0]).double(), torch.tensor([3.0, 1.0]).double()
    sampler.is_fitted.fill_(True)
    num = 100_000
    z = (sampler.sample(num).z.double() - torch.tensor([1.0, 2.0])) / torch.tensor([3.0, 1.0])
    variance = temperature**2 * (WEIGHT**2 + GAMMA**2)
    assert (z.mean(0).abs() < 4.5 * math.sqrt(variance / num)).all()
    assert ((z.square().mean(0) - variance).abs() < 4.5 * variance * math.sqrt(2 / num)).all()


def test_gamma_is_learned_and_does_not_collapse():
    """On a curve without noise the best gamma is 0: it falls from 1 to near its bound; u is used."""
    torch.manual_seed(0)
    t = torch.randn(600)
    sampler = TwoStageSampler(
        hidden_dim=32, num_layers=1, num_epochs=60, learning_rate=2e-2, min_gamma=0.1, batch_size=100
    ).setup(LinearModel())
    assert sampler.density.log_gamma.item() == 0
    sampler.fit(Draws(torch.stack([t, 2 * t + 1], 1)))
    with torch.no_grad():
        loss = sampler.density.loss(Batch(torch.stack([t, 2 * t + 1], 1)), 0)
    assert 0.1 <= float(loss.terms["gamma"]) < 0.2
    assert float(loss.terms["rate"]) > 1
    sampler.density.raw_log_gamma.data.fill_(-1e6)
    assert float(sampler.density.log_gamma.exp().detach()) == pytest.approx(0.1)


def test_the_surface_of_the_page():
    """TwoStageSampler and RHVAESampler are BaseSamplers; the first composes SecondEncoder and SecondDecoder."""
    assert issubclass(TwoStageSampler, BaseSampler)
    assert issubclass(RHVAESampler, BaseSampler)
    sampler = TwoStageSampler(hidden_dim=8).setup(LinearModel())
    assert isinstance(sampler.second_encoder, SecondEncoder)
    assert isinstance(sampler.second_decoder, SecondDecoder)
    mean, log_var = sampler.second_encoder(torch.randn(3, 2))
    assert mean.shape == log_var.shape == sampler.second_decoder(torch.randn(3, 2)).shape == (3, 2)


def test_its_parts_are_encoder_and_decoder_of_any_vae():
    vae = VAE(
        (4,), likelihood="gaussian", latent_dim=4, encoder=SecondEncoder(4, 16, 2), decoder=SecondDecoder(4, 16, 2)
    )
    assert vae.loss(Batch(torch.randn(5, 4)), 0).total.isfinite()
    assert vae.sample(3).shape == (3, 4)


def test_the_input_reaches_the_last_layer_past_the_hidden_ones():
    decoder = SecondDecoder(2, 8, 2)
    for parameter in decoder.trunk.layers.parameters():
        nn.init.zeros_(parameter)
    u = torch.randn(3, 2)
    torch.testing.assert_close(decoder(u), u @ decoder.trunk.last.weight[:, :2].T + decoder.trunk.last.bias)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"hidden_dim": 0}, "hidden_dim must be"),
        ({"num_layers": 0}, "num_layers must be"),
        ({"min_gamma": 0.0}, "min_gamma must be"),
        ({"min_gamma": 1.0}, "min_gamma must be"),
        ({"patience": 0}, "patience must be"),
    ],
)
def test_settings_out_of_range_are_named(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        TwoStageSampler(**settings)
