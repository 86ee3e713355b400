"""The fully connected network."""

import pytest
import torch

from vaebench.networks import MLP


def _count(module):
    return sum(p.numel() for p in module.parameters())


def test_number_of_parameters_and_the_order_of_the_widths():
    network = MLP(hidden_dims=(7, 5))
    assert _count(network.encoder((1, 2, 3))) == (6 * 7 + 7) + (7 * 5 + 5)
    assert _count(network.decoder(4, (1, 2, 3))) == (4 * 5 + 5) + (5 * 7 + 7) + (7 * 6 + 6)
    given = MLP(hidden_dims=(7, 5), decoder_hidden_dims=(3, 11)).decoder(4, (6,))
    assert [tuple(p.shape) for p in given.parameters() if p.ndim == 2] == [(3, 4), (11, 3), (6, 11)]


def test_empty_widths_are_a_linear_map():
    network = MLP(hidden_dims=())
    encoder, decoder = network.encoder((2, 3)), network.decoder(4, (2, 3))
    x, z = torch.randn(5, 2, 3), torch.randn(5, 4)
    assert torch.equal(encoder(x), x.flatten(1))
    assert encoder.num_features == 6
    torch.testing.assert_close(decoder(z), (z @ decoder[0].weight.T + decoder[0].bias).reshape(5, 2, 3))


def test_computes_what_its_weights_say():
    encoder = MLP(hidden_dims=(7,), activation="tanh").encoder((6,))
    weight, bias = encoder.parameters()
    x = torch.randn(5, 6)
    torch.testing.assert_close(encoder(x), torch.tanh(x @ weight.T + bias))


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 2, 5), (7,)])
def test_every_pixel_matters_on_both_sides(shape):
    network = MLP(hidden_dims=(9,), activation="tanh")
    x = torch.randn(2, *shape, requires_grad=True)
    encoder = network.encoder(shape)
    features = encoder(x)
    assert features.shape == (2, encoder.num_features)
    features.square().sum().backward()
    assert (x.grad != 0).all()
    jacobian = torch.autograd.functional.jacobian(network.decoder(3, shape), torch.randn(1, 3))
    assert jacobian.shape[1 : 1 + len(shape)] == shape
    assert (jacobian.abs().sum(-1) != 0).all()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"hidden_dims": (5, 0)}, r"hidden_dims must be widths of at least 1, got \[5, 0\]"),
        ({"decoder_hidden_dims": (-1,)}, r"decoder_hidden_dims must be widths of at least 1, got \[-1\]"),
        ({"activation": "sigmoyd"}, "activation: unknown name 'sigmoyd'"),
    ],
)
def test_refusals(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        MLP(**arguments)
