"""Fully connected networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from vaebench.messages import NamedArguments
from vaebench.networks.conditioning import Condition, Stack, StackBuilder
from vaebench.networks.network import Encoder, StackEncoder, activation, check_widths, gates


@dataclass(frozen=True)
class MLP(NamedArguments):
    """Fully connected layers over the flattened example.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114 (appendix C)
    Args:
        hidden_dims: Widths of the encoder's layers, in the order of the data's flow; empty for a linear map.
        decoder_hidden_dims: Widths of the decoder's layers, likewise; None mirrors the encoder.
        activation: One of elu, gelu, glu, leaky_relu, none, relu, selu, silu, softplus, tanh.
    """

    hidden_dims: Sequence[int] = (512,)
    decoder_hidden_dims: Sequence[int] | None = None
    activation: str = "relu"

    def __post_init__(self) -> None:
        check_widths("hidden_dims", tuple(self.hidden_dims))
        check_widths("decoder_hidden_dims", tuple(self.decoder_hidden_dims or ()))
        activation(self.activation)

    def encoder(self, shape: tuple[int, ...], context_dim: int = 0, condition: Condition = "concat") -> Encoder:
        """Return a trunk (B, *shape), context (B, context_dim) -> (B, hidden_dims[-1])."""
        layers = StackBuilder(context_dim, condition)
        features = layers.begin(math.prod(shape), len(self.hidden_dims))
        features = add_hidden_layers(layers, features, self.hidden_dims, self.activation)
        return StackEncoder(layers.build(), features, is_flat=True)

    def decoder(
        self, latent_dim: int, shape: tuple[int, ...], context_dim: int = 0, condition: Condition = "concat"
    ) -> Stack:
        """Return a module (B, latent_dim), context (B, context_dim) -> (B, *shape)."""
        given = self.decoder_hidden_dims
        widths = tuple(reversed(self.hidden_dims)) if given is None else tuple(given)
        layers = StackBuilder(context_dim, condition)
        features = layers.begin(latent_dim, len(widths))
        features = add_hidden_layers(layers, features, widths, self.activation)
        layers.add(nn.Linear(features, math.prod(shape)), nn.Unflatten(-1, shape))
        return layers.build()


def add_hidden_layers(layers: StackBuilder, in_features: int, widths: Sequence[int], name: str) -> int:
    """Append linear layers with activations, levels F1, F2, …; return the number of features after them."""
    for number, width in enumerate(widths, 1):
        layers.add(nn.Linear(in_features, width * gates(name)))
        layers.activate(activation(name), width * gates(name), f"F{number}")
        in_features = width
    return in_features
