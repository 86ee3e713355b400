"""Encoders and decoders of a user's own, in Python and in a configuration."""

import pytest
import torch
from torch import nn

from vaebench import factory
from vaebench.core import Batch
from vaebench.data.digits import Digits
from vaebench.models.rae_l2 import RAEL2
from vaebench.models.vae import VAE
from vaebench.networks import CNNDecoder, CNNEncoder, MLPDecoder, MLPEncoder

OWN = """
from torch import nn

class Encoder(nn.Module):
    def __init__(self, width: int = 16):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 6))

    def forward(self, x):
        return self.body(x).chunk(2, dim=1)

class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 64), nn.Unflatten(1, (1, 8, 8)))

    def forward(self, z):
        return self.body(z)
"""


class Returns(nn.Module):
    def __init__(self, output, **attributes):
        super().__init__()
        self.output = output
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.output(len(x)) if callable(self.output) else self.output


def test_the_pages_constructor():
    encoder = CNNEncoder(hidden_dims=[4, 8], latent_dim=3, input_dim=(1, 9, 6))
    decoder = CNNDecoder(hidden_dims=[8, 4], output_dim=(1, 9, 6), latent_dim=3)
    model, x = VAE(encoder=encoder, decoder=decoder, latent_dim=3), torch.rand(5, 1, 9, 6)
    assert model.shape == (1, 9, 6)
    mean, log_var = model.encode(x)
    torch.testing.assert_close(mean, encoder(x)[0])
    torch.testing.assert_close(log_var, 10 * torch.tanh(encoder(x)[1] / 10))
    torch.testing.assert_close(model.decode(mean), decoder(mean))
    model.loss(Batch(x), 0).total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_likelihood_takes_what_the_decoder_returns():
    model = VAE(
        likelihood="bernoulli", encoder=MLPEncoder([8], 3, input_dim=12), decoder=MLPDecoder([8], 12, 3), latent_dim=3
    )
    z = torch.randn(4, 3)
    torch.testing.assert_close(model.decode(z), torch.sigmoid(model.decoder(z)))
    with pytest.raises(ValueError, match="shape is needed: DiscretizedLogistic has other parameters"):
        VAE(likelihood="discretized_logistic", decoder=MLPDecoder([8], 12, 3), latent_dim=3)
    with pytest.raises(ValueError, match="shape and likelihood are needed where there is no decoder of your own"):
        VAE(latent_dim=3)


def test_one_side_may_be_the_networks():
    model = VAE((12,), likelihood="bernoulli", encoder=MLPEncoder([8], 3, input_dim=12), latent_dim=3)
    assert model(torch.rand(2, 12))["z"].shape == (2, 3)


@pytest.mark.parametrize("names", [("mean", "log_var"), ("mu", "logvar"), ("loc", "log_variance")])
def test_a_mapping_is_read_by_its_names(names):
    mean, log_var = torch.randn(2, 3), torch.randn(2, 3)
    model = VAE(
        (12,), likelihood="bernoulli", encoder=Returns(dict(zip(names, (mean, log_var), strict=True))), latent_dim=3
    )
    assert torch.equal(model.encode(torch.rand(2, 12)).mean, mean)


def test_an_encoder_that_returns_features_gets_the_models_posterior():
    encoder = Returns(lambda n: torch.ones(n, 7), num_features=7)
    model = RAEL2((12,), likelihood="gaussian", encoder=encoder, latent_dim=3)
    assert model.encode(torch.rand(2, 12)).mean.shape == (2, 3)


@pytest.mark.parametrize(
    ("output", "came"),
    [
        (torch.zeros(2, 3), r"a tensor of shape \(2, 3\)"),
        (
            (torch.zeros(2, 3), torch.zeros(2, 4)),
            r"a tuple of 2: a tensor of shape \(2, 3\), a tensor of shape \(2, 4\)",
        ),
        ((torch.zeros(2, 3),) * 3, "a tuple of 3"),
        ({"mean": torch.zeros(2, 3)}, r"a mapping with mean \(a tensor of shape \(2, 3\)\)"),
        (None, "a NoneType"),
    ],
)
def test_an_encoder_that_returns_something_else(output, came):
    model = VAE((12,), likelihood="bernoulli", encoder=Returns(output), latent_dim=3)
    with pytest.raises(
        ValueError, match=rf"encoder: Returns must return mean and log-variance, .* \(2, 3\), .* got {came}"
    ):
        model.encode(torch.rand(2, 12))


def test_a_decoder_that_returns_something_else():
    model = VAE((12,), likelihood="bernoulli", decoder=Returns(torch.zeros(2, 11)), latent_dim=3)
    with pytest.raises(
        ValueError, match=r"decoder: Returns must return .* of shape \(2, 12\); got a tensor of shape \(2, 11\)"
    ):
        model.decode(torch.zeros(2, 3))


def test_another_posterior_needs_features():
    with pytest.raises(
        ValueError, match="encoder: Returns returns mean and log-variance, which DeterministicPosterior"
    ):
        RAEL2((12,), likelihood="gaussian", encoder=Returns(None), latent_dim=3)


def test_a_configuration_names_them(tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    cfg = {
        "model": {
            "_target_": "vaebench.models.vae.VAE",
            "likelihood": {"_target_": "auto"},
            "latent_dim": 3,
            "encoder": {"_target_": "own_nets.Encoder", "width": 5},
            "decoder": {"_target_": "own_nets.Decoder"},
        }
    }
    with pytest.raises(ValueError, match=r"model.encoder._target_: 'own_nets.Encoder' is not allowed"):
        factory.model(cfg, Digits())
    monkeypatch.setenv("VAEBENCH_ALLOW", "own_nets")
    model = factory.model(cfg, Digits())
    assert model.loss(Digits().train.batch(torch.arange(4)), 0).total.isfinite()
    assert model.encoder.module.body[1].out_features == 5
    cfg["model"]["encoder"]["widht"] = 3
    with pytest.raises(ValueError, match=r"model.encoder.widht: Encoder has no such setting; did you mean 'width'\?"):
        factory.model(cfg, Digits())
