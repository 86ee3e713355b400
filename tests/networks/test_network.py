"""Activations by name."""

import pytest
import torch

from vaebench.networks.network import ACTIVATIONS, activation, gates


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"glu", "none"}))
def test_each_name_is_that_function(name):
    x = torch.linspace(-3, 3, 13)
    torch.testing.assert_close(activation(name)(x), getattr(torch.nn.functional, name)(x))


def test_a_gate_halves_the_channels():
    x = torch.randn(2, 6, 3)
    torch.testing.assert_close(activation("glu")(x), x[:, :3] * torch.sigmoid(x[:, 3:]))
    assert (gates("glu"), gates("tanh")) == (2, 1)


def test_none_is_the_identity():
    x = torch.randn(3)
    assert activation("none")(x) is x


def test_each_call_returns_a_new_module():
    assert activation("relu") is not activation("relu")


def test_a_typo_names_the_nearest():
    with pytest.raises(ValueError, match=r"activation: unknown name 'leaky-relu'; did you mean 'leaky_relu'\?"):
        activation("leaky-relu")
