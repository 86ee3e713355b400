"""Contexts in networks: what each condition computes, and where it enters."""

import pytest
import torch

from vaebench.networks import MLP, Conv, ResNet
from vaebench.networks.conditioning import CONDITIONS, Add, Concat, FiLM, injection

NETWORKS = {
    "mlp": (MLP((7, 5), activation="tanh"), (2, 3, 4)),
    "linear": (MLP(()), (6,)),
    "conv": (Conv((4, 6), hidden_dim=5, activation="tanh"), (2, 5, 3)),
    "gated conv": (Conv((4,), hidden_dim=5, activation="glu", norm="group"), (1, 4, 4)),
    "resnet": (ResNet((8, 4), num_blocks=2, hidden_dim=5), (2, 5, 3)),
    "conv without a hidden layer": (Conv((4,), hidden_dim=0, activation="tanh"), (1, 4, 4)),
}
each_network = pytest.mark.parametrize(("network", "shape"), NETWORKS.values(), ids=NETWORKS)
each_condition = pytest.mark.parametrize("condition", CONDITIONS)


def _count(module):
    return sum(p.numel() for p in module.parameters())


def test_concat_makes_constant_channels():
    h, c = torch.randn(2, 3, 4, 5), torch.randn(2, 6)
    out = Concat(3, 6)(h, c)
    assert torch.equal(out[:, :3], h)
    assert torch.equal(out[:, 3:], c[:, :, None, None].expand(2, 6, 4, 5))
    assert torch.equal(Concat(3, 6)(h[..., 0, 0], c), torch.cat([h[..., 0, 0], c], 1))


def test_film_is_the_identity_at_the_start_and_affine_after():
    layer, h, c = FiLM(3, 6), torch.randn(2, 3, 4, 5), torch.randn(2, 6)
    assert torch.equal(layer(h, c), h)
    torch.nn.init.normal_(layer.linear.weight)
    torch.nn.init.normal_(layer.linear.bias)
    gamma, beta = (c @ layer.linear.weight.T + layer.linear.bias)[:, :, None, None].split(3, 1)
    torch.testing.assert_close(layer(h, c), (1 + 0.16 / 6**0.5 * gamma) * h + 64 / 6**0.5 * beta)


def test_add_projects_and_adds():
    layer, h, c = Add(3, 6), torch.randn(2, 3, 4), torch.randn(2, 6)
    torch.testing.assert_close(layer(h, c), h + (c @ layer.linear.weight.T)[:, :, None])


@each_network
def test_without_a_context_nothing_changes(network, shape):
    for build in (lambda **k: network.encoder(shape, **k), lambda **k: network.decoder(3, shape, **k)):
        torch.manual_seed(0)
        plain = build()
        torch.manual_seed(0)
        other = build(context_dim=0, condition="film")
        assert list(plain.state_dict()) == list(other.state_dict())
        assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), other.parameters(), strict=True))


@each_network
def test_film_at_initialisation_is_the_network_without_a_context(network, shape):
    for build, data in (
        (lambda **k: network.encoder(shape, **k), torch.randn(2, *shape)),
        (lambda **k: network.decoder(3, shape, **k), torch.randn(2, 3)),
    ):
        torch.manual_seed(0)
        plain = build()
        torch.manual_seed(0)
        film = build(context_dim=4, condition="film")
        assert torch.equal(film(data, torch.randn(2, 4)), plain(data))


@each_network
@each_condition
def test_the_context_reaches_the_output_on_both_sides(network, shape, condition):
    for module, data in (
        (network.encoder(shape, 4, condition), torch.randn(2, *shape)),
        (network.decoder(3, shape, 4, condition), torch.randn(2, 3)),
    ):
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        assert module.context_dim == 4
        context = torch.randn(2, 4, requires_grad=True)
        out = module(data, context)
        out[0].square().sum().backward()
        assert (context.grad[0] != 0).all()
        assert (context.grad[1] == 0).all(), "one example's context reaches another's output"


def test_concat_widens_the_first_layer_only():
    network = MLP((7,))
    assert _count(network.encoder((6,), 4)) - _count(network.encoder((6,))) == 4 * 7
    assert _count(network.decoder(3, (6,), 4)) - _count(network.decoder(3, (6,))) == 4 * 7
    network = Conv((8,), hidden_dim=5)
    assert _count(network.encoder((2, 4, 4), 3)) - _count(network.encoder((2, 4, 4))) == 3 * 9 * 8
    assert _count(network.decoder(2, (2, 4, 4), 3)) - _count(network.decoder(2, (2, 4, 4))) == 3 * 5
    assert MLP(()).encoder((6,), 4).num_features == 10


@each_network
def test_features_are_the_levels_of_the_forward_pass(network, shape):
    encoder, x = network.encoder(shape, 4), torch.randn(2, *shape)
    context = torch.randn(2, 4)
    levels = encoder.features(x, context)
    out = encoder(x, context)
    assert out.shape == (2, encoder.num_features)
    if levels:
        assert torch.equal(list(levels.values())[-1].flatten(1), out)
    assert all(len(level) == 2 for level in levels.values())


def test_the_names_of_the_levels_say_their_stride():
    levels = Conv((4, 6), hidden_dim=5).encoder((2, 5, 9)).features(torch.randn(3, 2, 5, 9))
    assert {name: tuple(level.shape) for name, level in levels.items()} == {
        "C2": (3, 4, 3, 5), "C3": (3, 6, 2, 3), "F1": (3, 5),
    }  # fmt: skip
    levels = MLP((7, 5)).encoder((6,)).features(torch.randn(3, 6))
    assert {name: tuple(level.shape) for name, level in levels.items()} == {"F1": (3, 7), "F2": (3, 5)}


@pytest.mark.parametrize(
    ("context_dim", "context", "sentence"),
    [
        (4, None, r"expected a context of shape \(2, 4\), got none"),
        (4, torch.zeros(2, 3), r"expected a context of shape \(2, 4\), got \(2, 3\)"),
        (4, torch.zeros(1, 4), r"expected a context of shape \(2, 4\), got \(1, 4\)"),
        (0, torch.zeros(2, 4), r"expected no context, since the network was built with context_dim=0; got \(2, 4\)"),
    ],
)
def test_a_context_that_does_not_fit_is_refused(context_dim, context, sentence):
    for module in (MLP((7,)).encoder((6,), context_dim), MLP((7,)).decoder(6, (6,), context_dim)):
        with pytest.raises(ValueError, match=sentence):
            module(torch.zeros(2, 6), context)


def test_refusals():
    with pytest.raises(ValueError, match=r"condition: unknown name 'flim'; did you mean 'film'\?"):
        injection("flim", 3, 4)
    with pytest.raises(ValueError, match="condition: unknown name 'cat'"):
        MLP().encoder((6,), 4, "cat")
    with pytest.raises(ValueError, match="context_dim must be a whole number of at least 0; got -1"):
        MLP().encoder((6,), -1)
