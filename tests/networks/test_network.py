"""Activations by name."""

import pytest
import torch

from vaebench.networks.network import ACTIVATIONS, activation


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_each_name_is_that_function(name):
    x = torch.linspace(-3, 3, 13)
    torch.testing.assert_close(activation(name)(x), getattr(torch.nn.functional, name)(x))


def test_each_call_returns_a_new_module():
    assert activation("relu") is not activation("relu")


def test_a_typo_names_the_nearest():
    with pytest.raises(ValueError, match=r"activation: unknown name 'leaky-relu'; did you mean 'leaky_relu'\?"):
        activation("leaky-relu")
