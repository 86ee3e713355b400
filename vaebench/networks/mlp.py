"""Fully connected networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from vaebench.networks.network import Encoder, activation, check_widths


@dataclass(frozen=True)
class MLP:
    """Fully connected layers over the flattened example.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114 (appendix C)
    Args:
        hidden_dims: Widths of the encoder's layers, in the order of the data's flow; empty for a linear map.
        decoder_hidden_dims: Widths of the decoder's layers, likewise; None mirrors the encoder.
        activation: One of elu, gelu, leaky_relu, relu, selu, silu, softplus, tanh.
    """

    hidden_dims: Sequence[int] = (512,)
    decoder_hidden_dims: Sequence[int] | None = None
    activation: str = "relu"

    def __post_init__(self) -> None:
        check_widths("hidden_dims", tuple(self.hidden_dims))
        check_widths("decoder_hidden_dims", tuple(self.decoder_hidden_dims or ()))
        activation(self.activation)

    def encoder(self, shape: tuple[int, ...]) -> Encoder:
        """Return a trunk (B, *shape) -> (B, hidden_dims[-1])."""
        return _MLPEncoder(math.prod(shape), tuple(self.hidden_dims), self.activation)

    def decoder(self, latent_dim: int, shape: tuple[int, ...]) -> nn.Module:
        """Return a module (B, latent_dim) -> (B, *shape)."""
        given = self.decoder_hidden_dims
        widths = tuple(reversed(self.hidden_dims)) if given is None else tuple(given)
        last = (latent_dim, *widths)[-1]
        return nn.Sequential(
            *_layers(latent_dim, widths, self.activation), nn.Linear(last, math.prod(shape)), nn.Unflatten(-1, shape)
        )


def _layers(in_features: int, widths: tuple[int, ...], name: str) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(in_features, width), activation(name)]
        in_features = width
    return layers


class _MLPEncoder(Encoder):
    def __init__(self, in_features: int, widths: tuple[int, ...], name: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_layers(in_features, widths, name))
        self.num_features = (in_features, *widths)[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1))
