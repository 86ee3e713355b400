"""The convolutional network: exact sizes, and nothing of the picture unseen."""

import pytest
import torch

from vaebench.networks import Conv, ResNet
from vaebench.networks.conditioning import StackBuilder
from vaebench.networks.images import add_convolution, add_transposed_convolution, sizes_of


@pytest.mark.parametrize(
    ("kernel_size", "stride"),
    [(3, 2), (2, 2), (4, 2), (5, 2), (6, 2), (3, 1), (4, 1), (4, 3), ((4, 3, 2), (2, 1, 2))],
    ids=str,
)
def test_sizes_are_exact_for_every_kernel_and_stride(kernel_size, stride):
    network = Conv(channels=(1, 1, 1), hidden_dim=0, kernel_size=kernel_size, stride=stride)
    for height in range(1, 71):  # every height to 70 and every width to 33; they do not meet
        shape = (1, height, 7 * height % 33 + 1)
        encoder = network.encoder(shape)
        with torch.no_grad():
            assert encoder(torch.zeros(1, *shape)).shape == (1, encoder.num_features)
            assert network.decoder(2, shape)(torch.zeros(1, 2)).shape == (1, *shape)


def test_the_transposed_convolution_is_the_convolutions_adjoint():
    """<conv(x), y> = <x, conv^T(y)> with the same weights, so that both cut and pad the same pixels."""
    for size, kernel, stride in [((8, 5), 4, 2), ((7, 6), 2, 2), ((9, 4), 3, 2), ((7, 7), 5, 3), ((5, 4), 4, 1)]:
        down, up = StackBuilder(0, "concat"), StackBuilder(0, "concat")
        small = sizes_of(size, [stride])[-1]
        add_convolution(down, 2, 3, kernel, stride, size)
        add_transposed_convolution(up, 3, 2, kernel, stride, small, size)
        conv, transposed = down.build().double(), up.build().double()
        for parameter in (*conv.parameters(), *transposed.parameters()):
            torch.nn.init.normal_(parameter) if parameter.ndim > 1 else torch.nn.init.zeros_(parameter)
        weights = [m.weight for m in (*conv, *transposed) if hasattr(m, "weight")]
        weights[1].data.copy_(weights[0].data)
        x, y = torch.randn(1, 2, *size).double(), torch.randn(1, 3, *small).double()
        torch.testing.assert_close((conv(x) * y).sum(), (x * transposed(y)).sum())


def test_a_decoder_of_its_own():
    network = Conv(
        (4, 6), 0, kernel_size=4, decoder_channels=(8, 5, 3), decoder_kernel_size=5, decoder_stride=(2, 2, 1)
    )
    assert network.decoder_sizes(9, 16) == [(3, 4), (5, 8), (9, 16), (9, 16)]
    decoder = network.decoder(2, (1, 9, 16))
    assert [tuple(p.shape[:2]) for p in decoder.parameters() if p.ndim == 4] == [(8, 5), (5, 3), (3, 1)]
    assert decoder(torch.zeros(1, 2)).shape == (1, 1, 9, 16)


def test_pool_keeps_positions_or_averages_over_them():
    x = torch.randn(2, 1, 8, 8)
    for pool, factor in (("flatten", 4), ("gap", 1)):
        encoder = Conv((3, 5), 0, pool=pool).encoder((1, 8, 8))
        assert encoder.num_features == 5 * factor
        last = encoder.features(x)["C3"]
        torch.testing.assert_close(encoder(x), last.flatten(1) if pool == "flatten" else last.mean((2, 3)))


def test_a_normalised_example_does_not_depend_on_its_batch():
    encoder = Conv((8,), 0, norm="group", num_blocks=1, block_channels=2).encoder((1, 6, 6)).double()
    x = torch.randn(4, 1, 6, 6).double()
    torch.testing.assert_close(encoder(x)[:1], encoder(x[:1]))


@pytest.mark.parametrize(
    "network", [Conv((4, 6), num_blocks=1, activation="glu"), ResNet((4, 6))], ids=["conv", "resnet"]
)
def test_grids_keep_positions_and_mirror_the_size(network):
    encoder, decoder = network.grid_encoder((2, 9, 6)), network.grid_decoder(7, (2, 9, 6))
    assert encoder.size == (3, 2)
    assert encoder(torch.randn(2, 2, 9, 6)).shape == (2, encoder.num_features, 3, 2)
    assert decoder(torch.randn(2, 7, 3, 2)).shape == (2, 2, 9, 6)


def test_a_grid_needs_a_mirror():
    network = Conv((4, 6), decoder_channels=(6,), decoder_stride=2)
    with pytest.raises(
        ValueError, match=r"decoder_stride must take the encoder's \(2, 2\) back to \(8, 8\); it starts at"
    ):
        network.grid_decoder(7, (1, 8, 8))


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
        ({"hidden_dim": (3, 0)}, r"hidden_dim must be widths of at least 1, got \[3, 0\]"),
        ({"kernel_size": (3, 4, 3)}, r"kernel_size must have one entry for each of 2 layers, got \[3, 4, 3\]"),
        ({"stride": 0}, r"stride must be widths of at least 1"),
        ({"kernel_size": 1}, "kernel_size must be at least the stride 2, else pixels are not seen; got 1"),
        ({"decoder_kernel_size": 1}, "decoder_kernel_size must be at least the stride 2"),
        ({"norm": "gruop"}, "norm: unknown name 'gruop'; did you mean 'group'?"),
        ({"pool": "max"}, "pool: unknown name 'max'"),
        ({"num_blocks": -1}, "num_blocks must be a whole number of at least 0; got -1"),
        ({"activation": "rellu"}, "activation: unknown name 'rellu'; did you mean 'relu'?"),
    ],
)
def test_refusals(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Conv(**arguments)


@pytest.mark.parametrize("build", [lambda n: n.encoder((7,)), lambda n: n.decoder(2, (7,))])
def test_refuses_vectors(build):
    with pytest.raises(
        ValueError, match=r"images of shape \(C, H, W\), got examples of shape \(7,\); use model/network=mlp"
    ):
        build(Conv())
