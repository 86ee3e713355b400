"""The residual network: exact sizes, what a block computes, nothing of the picture unseen."""

import pytest
import torch
import torch.nn.functional as F

from vaebench.networks import ResNet
from vaebench.networks.images import group_norm
from vaebench.networks.residual import bottleneck, pre_activation


def test_sizes_are_exact_for_every_height_and_width():
    network = ResNet(channels=(4, 4, 4), hidden_dim=0)
    for height in range(1, 71):  # every height to 70 and every width to 33; they do not meet
        shape = (1, height, 7 * height % 33 + 1)
        encoder = network.encoder(shape)
        with torch.no_grad():
            assert encoder(torch.zeros(1, *shape)).shape == (1, encoder.num_features)
            assert network.decoder(2, shape)(torch.zeros(1, 2)).shape == (1, *shape)
    assert network.sizes(70, 33) == [(70, 33), (35, 17), (18, 9), (9, 5)]


def test_a_block_is_normalise_activate_convolve_twice_and_a_shortcut():
    block, h = pre_activation(8, 12, "silu", 0, "concat", stride=2).double(), torch.randn(2, 8, 5, 6).double()
    norm1, _, conv1, norm2, _, conv2 = block.body
    out = conv2(F.silu(norm2(conv1(F.silu(norm1(h))))))
    torch.testing.assert_close(block(h), out + F.conv2d(h, block.shortcut[0].weight, block.shortcut[0].bias, 2))
    same = pre_activation(8, 8, "silu", 0, "concat")
    assert not list(same.shortcut.parameters())


def test_a_block_doubles_every_pixel_and_cuts_the_excess():
    block = pre_activation(4, 4, "silu", 0, "concat", up=((3, 2), (5, 4)))
    h = torch.randn(1, 4, 3, 2)
    doubled = h.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :5]
    torch.testing.assert_close(block.shortcut(h), doubled)
    assert block(h).shape == (1, 4, 5, 4)


def test_the_bottleneck_of_vq_vae():
    block, h = bottleneck(6, 3), torch.randn(2, 6, 4, 4)
    conv3, conv1 = block.body[1], block.body[3]
    assert (conv3.kernel_size, conv1.kernel_size) == ((3, 3), (1, 1))
    torch.testing.assert_close(block(h), h + conv1(F.relu(conv3(F.relu(h)))))


def test_groups_are_of_four_channels_or_more():
    assert [group_norm(n).num_groups for n in (1, 3, 4, 6, 8, 32, 64, 128, 256)] == [1, 1, 1, 1, 2, 8, 16, 32, 32]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 8), (3, 7, 10)])
@pytest.mark.parametrize("pool", ["flatten", "gap"])
def test_every_pixel_matters_on_both_sides(shape, pool):
    network = ResNet(channels=(8, 8), hidden_dim=5, pool=pool)
    x = torch.randn(1, *shape, requires_grad=True)
    network.encoder(shape)(x).square().sum().backward()
    assert (x.grad != 0).all()
    jacobian = torch.autograd.functional.jacobian(network.decoder(3, shape), torch.randn(1, 3))
    assert (jacobian.abs().sum(-1) != 0).all()


def test_number_of_blocks():
    def convolutions(network):
        return sum(isinstance(m, torch.nn.Conv2d) for m in network.encoder((1, 8, 8)).modules())

    assert convolutions(ResNet((4, 4), num_blocks=1)) == 1 + 2 * 3
    assert convolutions(ResNet((4, 4), num_blocks=3)) == 1 + 2 * 3 + 4 * 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"channels": ()}, "channels must name at least one level"),
        ({"num_blocks": 0}, "num_blocks must be a whole number of at least 1; got 0"),
        ({"hidden_dim": -1}, "hidden_dim must be a whole number of at least 0; got -1"),
        ({"activation": "glu"}, "activation: ResNet takes no 'glu', whose gate doubles the channels"),
        ({"pool": "average"}, "pool: unknown name 'average'"),
    ],
)
def test_refusals(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        ResNet(**arguments)


def test_refuses_vectors():
    with pytest.raises(ValueError, match=r"ResNet takes images of shape \(C, H, W\), got examples of shape \(7,\)"):
        ResNet().encoder((7,))
