"""The convolutional network: exact sizes, and nothing of the picture unseen."""

import pytest
import torch

from vaebench.networks import Conv

SIZES = range(1, 34)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_sizes_are_exact_for_every_height_and_width(depth):
    network = Conv(channels=(1,) * depth, hidden_dim=0)
    for height in SIZES:
        for width in SIZES:
            shape = (1, height, width)
            encoder = network.encoder(shape)
            with torch.no_grad():
                assert encoder(torch.zeros(1, *shape)).shape == (1, encoder.num_features)
                assert network.decoder(2, shape)(torch.zeros(1, 2)).shape == (1, *shape)


def test_the_decoder_passes_through_the_encoders_sizes():
    network = Conv(channels=(2, 3, 4, 5), hidden_dim=0)
    assert network.sizes(28, 33) == [(28, 33), (14, 17), (7, 9), (4, 5), (2, 3)]
    seen, mirrored = [], []
    encoder, decoder = network.encoder((1, 28, 33)), network.decoder(2, (1, 28, 33))
    for module in [*encoder.modules(), *decoder.modules()]:
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda m, i, o: seen.append(tuple(o.shape[-2:])))
        if isinstance(module, torch.nn.ConvTranspose2d):
            module.register_forward_hook(lambda m, i, o: mirrored.append(tuple(i[0].shape[-2:])))
    encoder(torch.zeros(1, 1, 28, 33))
    decoder(torch.zeros(1, 2))
    assert seen == [(14, 17), (7, 9), (4, 5), (2, 3)]
    assert mirrored == seen[::-1]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 8), (3, 7, 10), (2, 13, 5)])
def test_every_pixel_matters_on_both_sides(shape):
    network = Conv(channels=(3, 4), hidden_dim=5, activation="tanh")  # tanh: no pixel is hidden by a dead unit
    x = torch.randn(1, *shape, requires_grad=True)
    network.encoder(shape)(x).square().sum().backward()
    assert (x.grad != 0).all()
    z = torch.randn(1, 3)
    jacobian = torch.autograd.functional.jacobian(network.decoder(3, shape), z)
    assert (jacobian.abs().sum(-1) != 0).all()


def test_number_of_parameters():
    encoder, decoder = (Conv((4, 6), 10).encoder((3, 8, 8)), Conv((4, 6), 10).decoder(2, (3, 8, 8)))
    in_encoder = (3 * 9 * 4 + 4) + (4 * 9 * 6 + 6) + (6 * 2 * 2 * 10 + 10)
    in_decoder = (2 * 10 + 10) + (10 * 24 + 24) + (6 * 9 * 4 + 4) + (4 * 9 * 3 + 3)
    assert sum(p.numel() for p in encoder.parameters()) == in_encoder
    assert sum(p.numel() for p in decoder.parameters()) == in_decoder


def test_decoder_ends_without_a_nonlinearity():
    decoder = Conv((2,), 0).decoder(1, (1, 4, 4))
    assert isinstance(decoder[-1], torch.nn.ConvTranspose2d)
    assert decoder(torch.full((1, 1), -50.0)).min() < 0


def test_two_builds_share_nothing():
    network = Conv()
    first, second = network.encoder((1, 8, 8)), network.encoder((1, 8, 8))
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"channels": ()}, "channels must name at least one layer"),
        ({"channels": (32, 0)}, r"channels must be widths of at least 1, got \[32, 0\]"),
        ({"hidden_dim": -1}, "hidden_dim must be a whole number of at least 0; got -1"),
        ({"activation": "rellu"}, "activation: unknown name 'rellu'; did you mean 'relu'?"),
    ],
)
def test_refusals(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Conv(**arguments)


@pytest.mark.parametrize("build", [lambda n: n.encoder((7,)), lambda n: n.decoder(2, (7,))])
def test_refuses_vectors(build):
    with pytest.raises(ValueError, match=r"images of shape \(C, H, W\), got examples of shape \(7,\); use network=mlp"):
        build(Conv())
