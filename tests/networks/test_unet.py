"""U-Nets: pyramids of any size, squeeze-and-excitation, skips and attention maps where they belong."""

import pytest
import torch

from vaebench.networks import UNet
from vaebench.networks.attention_maps import AttentionFiLM
from vaebench.networks.squeeze_excitation import SqueezeExcitation

SMALL = UNet(base_channels=4)
SIZES = {
    (64, 64): [32, 16, 8, 4, 2], (28, 28): [14, 7, 4, 2], (32, 32): [16, 8, 4, 2], (128, 128): [64, 32, 16, 8, 4],
    (8, 8): [4, 2], (5, 4): [3], (1, 1): [1], (3, 2): [2], (70, 33): [35, 18, 9, 5, 3],
}  # fmt: skip


@pytest.mark.parametrize("size", [*SIZES, (48, 64)], ids=str)
def test_depth_follows_the_size_and_the_decoder_mirrors_it(size):
    encoder = SMALL.encoder((2, *size))
    levels = encoder.features(torch.rand(2, 2, *size))
    if size in SIZES:
        assert [level.shape[2] for level in levels.values()] == SIZES[size]
    else:
        assert list(levels)[-1] == "C6"
    for number, (name, level) in enumerate(levels.items()):
        assert name == f"C{number + 2}"
        assert level.shape[:2] == (2, 4 * 2**number)
    features = encoder(torch.rand(2, 2, *size))
    assert features.shape == (2, encoder.num_features)
    decoder = SMALL.decoder(3, (2, *size), skips=encoder.level_channels, num_slots=2)
    assert decoder(torch.rand(2, 3), skips=levels, attention_map=torch.rand(2, 2, 3, 5)).shape == (2, 2, *size)


def test_levels_have_the_published_shapes():
    encoder = UNet().encoder((3, 64, 64))
    levels = encoder.features(torch.rand(1, 3, 64, 64))
    assert {name: tuple(level.shape[1:]) for name, level in levels.items()} == {
        "C2": (32, 32, 32), "C3": (64, 16, 16), "C4": (128, 8, 8), "C5": (256, 4, 4), "C6": (512, 2, 2),
    }  # fmt: skip


def test_features_and_levels_are_of_one_pass():
    encoder, x = SMALL.encoder((1, 8, 8)), torch.rand(2, 1, 8, 8)
    calls = []
    encoder.stem.register_forward_hook(lambda *_: calls.append(1))
    features, levels = encoder.with_features(x)
    assert len(calls) == 1
    torch.testing.assert_close(features, encoder(x))
    torch.testing.assert_close(levels["C3"], encoder.features(x)["C3"])


def test_squeeze_and_excitation_weighs_channels_by_their_means():
    torch.manual_seed(0)
    layer, h = SqueezeExcitation(8), torch.randn(2, 8, 3, 5)
    weights = torch.sigmoid(
        torch.relu(h.mean((2, 3)) @ layer.squeeze.weight.T + layer.squeeze.bias) @ layer.excite.weight.T
        + layer.excite.bias
    )
    torch.testing.assert_close(layer(h), h * weights[:, :, None, None])
    assert layer.squeeze.out_features == 4
    assert SqueezeExcitation(160).squeeze.out_features == 10


class TestSkips:
    def _decoder(self, **arguments):
        torch.manual_seed(0)
        return SMALL.decoder(3, (1, 16, 16), **arguments)

    def test_every_level_reaches_the_output_the_lowest_included(self):
        decoder = self._decoder(skips=SMALL.levels((16, 16)))
        z, levels = torch.rand(2, 3), SMALL.encoder((1, 16, 16)).features(torch.rand(2, 1, 16, 16))
        assert list(levels) == ["C2", "C3", "C4"]
        none = decoder(z)
        for name, level in levels.items():
            assert not torch.allclose(decoder(z, skips={name: level}), none), name
        torch.testing.assert_close(decoder(z, skips={}), none)

    def test_without_skips_it_is_the_same_network(self):
        without, with_them = self._decoder(), self._decoder(skips=SMALL.levels((16, 16)))
        with_them.load_state_dict(without.state_dict(), strict=False)
        z = torch.rand(2, 3)
        torch.testing.assert_close(without(z), with_them(z))

    @pytest.mark.parametrize(
        ("skips", "sentence"),
        [
            ({"C3": torch.zeros(2, 8, 5, 4)}, r"the skip 'C3' to have shape \(2, 8, 4, 4\), got \(2, 8, 5, 4\)"),
            ({"C3": torch.zeros(1, 8, 4, 4)}, r"to have shape \(2, 8, 4, 4\), got \(1, 8, 4, 4\)"),
            ({"C7": torch.zeros(2, 8, 4, 4)}, "levels: the network has C2, C3, C4 and no 'C7'"),
        ],
    )
    def test_refuses_others(self, skips, sentence):
        with pytest.raises(ValueError, match=sentence):
            self._decoder(skips=SMALL.levels((16, 16)))(torch.zeros(2, 3), skips=skips)

    def test_refuses_any_where_none_are_taken(self):
        with pytest.raises(ValueError, match="expected no skips, since the decoder was built without them"):
            self._decoder()(torch.zeros(2, 3), skips={"C3": torch.zeros(2, 8, 4, 4)})


class TestAttention:
    def test_changes_nothing_at_first_and_with_none(self):
        torch.manual_seed(0)
        decoder, z = SMALL.decoder(3, (1, 16, 16), num_slots=5), torch.rand(2, 3)
        plain = decoder(z)
        for size in ((1, 1), (8, 8), (40, 7)):
            assert torch.equal(decoder(z, attention_map=torch.rand(2, 5, *size)), plain)

    def test_gradients_reach_the_maps_and_every_level_uses_them(self):
        torch.manual_seed(0)
        decoder, z = SMALL.decoder(3, (1, 16, 16), num_slots=5), torch.rand(2, 3)
        maps = torch.rand(2, 5, 8, 8, requires_grad=True)
        decoder(z, attention_map=maps).square().sum().backward()
        for name, layer in decoder.attend.items():
            assert layer.linear.weight.grad.abs().sum() > 0, name
            with torch.no_grad():
                layer.linear.weight.sub_(0.01 * layer.linear.weight.grad.sign())
        maps.grad = None
        decoder(z, attention_map=maps).square().sum().backward()
        assert (maps.grad.abs().sum((1, 2, 3)) > 0).all()

    def test_is_film_with_the_resized_maps(self):
        torch.manual_seed(0)
        layer, h, maps = AttentionFiLM(3, 2), torch.rand(1, 3, 4, 4), torch.rand(1, 2, 4, 4)
        torch.nn.init.normal_(layer.linear.weight)
        gamma, beta = torch.einsum("ck,bkhw->bchw", layer.linear.weight[..., 0, 0], maps).chunk(2, 1)
        torch.testing.assert_close(layer(h, maps), (1 + gamma) * h + beta)
        constant = torch.full((1, 2, 9, 7), 0.3)  # of any size: a constant map stays one
        torch.testing.assert_close(layer(h, constant), layer(h, torch.full((1, 2, 4, 4), 0.3)))

    @pytest.mark.parametrize(
        ("shape", "sentence"),
        [
            ((3, 5, 8, 8), r"attention maps of shape \(2, 5, h, w\), got \(3, 5, 8, 8\)"),
            ((2, 4, 8, 8), r"attention maps of shape \(2, 5, h, w\), got \(2, 4, 8, 8\)"),
            ((2, 5, 8), r"attention maps of shape \(2, 5, h, w\), got \(2, 5, 8\)"),
        ],
    )
    def test_refuses_others(self, shape, sentence):
        decoder = SMALL.decoder(3, (1, 16, 16), num_slots=5)
        with pytest.raises(ValueError, match=sentence):
            decoder(torch.zeros(2, 3), attention_map=torch.zeros(shape))
        with pytest.raises(ValueError, match="expected no attention map"):
            SMALL.decoder(3, (1, 16, 16))(torch.zeros(2, 3), attention_map=torch.zeros(2, 5, 8, 8))


@pytest.mark.parametrize("condition", ["concat", "film", "add"])
def test_contexts_enter_both_networks(condition):
    torch.manual_seed(0)
    encoder, decoder = SMALL.encoder((1, 8, 8), 3, condition), SMALL.decoder(2, (1, 8, 8), 3, condition)
    x, z, context = torch.rand(2, 1, 8, 8), torch.rand(2, 2), torch.rand(2, 3)
    for network, value in ((encoder, x), (decoder, z)):
        if condition == "film":  # at first the identity
            assert torch.equal(network(value, context), network(value, 2 * context))
            for name, parameter in network.named_parameters():
                if "linear" in name:
                    torch.nn.init.normal_(parameter)
        assert not torch.allclose(network(value, context), network(value, 2 * context))
        with pytest.raises(ValueError, match=r"expected a context of shape \(2, 3\), got none"):
            network(value)
        with pytest.raises(ValueError, match=r"expected a context of shape \(2, 3\), got \(2, 4\)"):
            network(value, torch.rand(2, 4))


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (
            lambda: UNet(num_levels=5).encoder((1, 8, 8)),
            "num_levels: a picture of 8x8 is too small for 5 levels, C2 to C6; it has room for 3",
        ),
        (lambda: UNet(num_levels=5).decoder(2, (1, 64, 16)), "a picture of 64x16 is too small for 5 levels"),
        (lambda: UNet(num_levels=6), "num_levels must be a whole number of at least 1 and at most 5, or null; got 6"),
        (lambda: UNet(base_channels=0), "base_channels must be a whole number of at least 1; got 0"),
        (lambda: UNet(num_blocks=0), "num_blocks must be a whole number of at least 1; got 0"),
        (lambda: UNet(activation="glu"), "activation: UNet takes no 'glu'"),
        (lambda: UNet().encoder((12,)), r"network: UNet takes images of shape \(C, H, W\), got .* \(12,\)"),
        (lambda: UNet().encoder((1, 8, 8))(torch.zeros(2, 1, 8, 9)), r"pictures of shape \(B, 1, 8, 8\), got \(2, 1,"),
        (lambda: UNet().decoder(3, (1, 8, 8))(torch.zeros(2, 4)), r"expected z of shape \(B, 3\), got \(2, 4\)"),
    ],
)
def test_refuses(mistake, sentence):
    with pytest.raises(ValueError, match=sentence):
        mistake()
