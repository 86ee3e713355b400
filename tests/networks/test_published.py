"""Published small networks: widths, sizes and numbers of parameters, counted by hand from the papers and their code."""

import itertools
from functools import cache

import pytest
import torch

from tests import composing
from vaebench.factory.recipes import recipe


@cache
def network(name):
    cfg = composing.plain("train", f"model/network={name}")
    return recipe(cfg["model"]["network"], "model.network").make()


def linear(*widths):
    return sum((a + 1) * b for a, b in itertools.pairwise(widths))


def convolutions(channels, kernels):
    return sum(a * b * k * k + b for a, b, k in zip(channels, channels[1:], kernels, strict=False))


def transposed(channels, kernels):
    return convolutions(channels, kernels)


def norms(*channels):
    return 2 * sum(channels)


BLOCK = 128 * 32 * 9 + 32 + 32 * 128 + 128
PUBLISHED = {
    # name: shape, latent, parameters of the encoder, of the decoder, size before the decoder's first convolution
    "iwae": ((1, 28, 28), 50, linear(784, 200, 200), linear(50, 200, 200, 784), None),
    "vamp_prior": (
        (1, 28, 28), 40,
        linear(784, 600) + linear(300, 600),
        linear(40, 600) + linear(300, 600) + linear(300, 784),
        None,
    ),
    "burgess": (
        (3, 64, 64), 10,
        convolutions((3, 32, 32, 32, 32), (4,) * 4) + linear(512, 256, 256),
        linear(10, 256, 256, 512) + transposed((32, 32, 32, 32, 3), (4,) * 4),
        (4, 4),
    ),
    "sigma_vae": (
        (1, 28, 28), 20,
        convolutions((1, 32, 64, 128), (3, 4, 5)),
        linear(20, 128 * 7 * 7) + transposed((128, 64, 32, 1), (6, 6, 5)),
        (7, 7),
    ),
    "pythae_conv_32": (
        (3, 32, 32), 16,
        convolutions((3, 128, 256, 512, 1024), (4,) * 4) + norms(128, 256, 512, 1024),
        linear(16, 1024 * 8 * 8) + norms(1024) + transposed((1024, 512, 256, 3), (4,) * 3) + norms(512, 256),
        (8, 8),
    ),
    "pythae_conv_64": (
        (3, 64, 64), 64,
        convolutions((3, 128, 256, 512, 1024), (4,) * 4) + norms(128, 256, 512, 1024),
        linear(64, 1024 * 8 * 8) + norms(1024) + transposed((1024, 512, 256, 128, 3), (5,) * 4) + norms(512, 256, 128),
        (8, 8),
    ),
    "pythae_resnet_32": (
        (3, 32, 32), 16,
        convolutions((3, 64, 128, 128), (4, 4, 3)) + 2 * BLOCK,
        linear(16, 128 * 8 * 8) + 2 * BLOCK + transposed((128, 64, 3), (4, 4)),
        (8, 8),
    ),
    "pythae_resnet_64": (
        (3, 64, 64), 16,
        convolutions((3, 64, 128, 128, 128), (4, 4, 3, 3)) + 2 * BLOCK,
        linear(16, 128 * 4 * 4) + 2 * BLOCK + transposed((128, 128, 128, 64, 3), (3, 5, 5, 4)),
        (4, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_sizes(name):
    shape, latent_dim, in_encoder, in_decoder, start = PUBLISHED[name]
    with torch.device("meta"):
        encoder, decoder = network(name).encoder(shape), network(name).decoder(latent_dim, shape)
        assert sum(p.numel() for p in encoder.parameters()) == in_encoder
        assert sum(p.numel() for p in decoder.parameters()) == in_decoder
        assert encoder(torch.empty(2, *shape)).shape == (2, encoder.num_features)
        assert decoder(torch.empty(2, latent_dim)).shape == (2, *shape)
    if start is not None:
        assert network(name).decoder_sizes(*shape[1:])[0] == start


def test_vq_vae_encodes_to_a_quarter_and_mirrors():
    with torch.device("meta"):
        encoder, decoder = network("vq_vae").grid_encoder((3, 32, 32)), network("vq_vae").grid_decoder(64, (3, 32, 32))
        assert encoder(torch.empty(2, 3, 32, 32)).shape == (2, 128, 8, 8)
        assert decoder(torch.empty(2, 64, 8, 8)).shape == (2, 3, 32, 32)
    assert sum(p.numel() for p in encoder.parameters()) == convolutions((3, 64, 128, 128), (4, 4, 3)) + 2 * BLOCK
