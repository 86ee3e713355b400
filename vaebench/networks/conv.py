"""Plain convolutional networks: stride 2 at every layer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from vaebench.messages import check_range
from vaebench.networks.conditioning import Condition, Stack, StackBuilder
from vaebench.networks.mlp import add_hidden_layers
from vaebench.networks.network import Encoder, activation, check_widths


@dataclass(frozen=True)
class Conv:
    """Convolutions of kernel 3 and stride 2, each halving the picture; mirrored in the decoder.

    The decoder returns exactly the encoder's sequence of sizes, for any height and width, so nothing is resized.

    References:
        beta-VAE (Higgins et al., 2017), https://openreview.net/forum?id=Sy2fzU9gl, whose widths for 64 x 64 are
        `channels: [32, 32, 64, 64]` and `hidden_dim: 256`
    Deviations:
        Kernel 3 instead of 4, so that odd sizes need no cropping.
    Args:
        channels: Output channels of the encoder's layers, in the order of the data's flow.
        hidden_dim: Width of the fully connected layer between convolutions and latent; 0 for none.
        activation: One of elu, gelu, leaky_relu, relu, selu, silu, softplus, tanh.
    """

    channels: Sequence[int] = (32, 64)
    hidden_dim: int = 256
    activation: str = "relu"

    def __post_init__(self) -> None:
        if not self.channels:
            raise ValueError("channels must name at least one layer, got []")
        check_widths("channels", tuple(self.channels))
        check_range("hidden_dim", self.hidden_dim, at_least=0, whole=True)
        activation(self.activation)

    def encoder(self, shape: tuple[int, ...], context_dim: int = 0, condition: Condition = "concat") -> Encoder:
        """Return a trunk (B, C, H, W), context (B, context_dim) -> (B, F).

        Raises:
            ValueError: if `shape` is not (C, H, W).
        """
        return _ConvEncoder(self, _check_image(shape), context_dim, condition)

    def decoder(
        self, latent_dim: int, shape: tuple[int, ...], context_dim: int = 0, condition: Condition = "concat"
    ) -> Stack:
        """Return a module (B, latent_dim), context (B, context_dim) -> (B, C, H, W).

        Raises:
            ValueError: if `shape` is not (C, H, W).
        """
        return _decoder(self, latent_dim, _check_image(shape), StackBuilder(context_dim, condition))

    @property
    def hidden_dims(self) -> tuple[int, ...]:
        """Widths of the fully connected layers."""
        return (self.hidden_dim,) if self.hidden_dim else ()

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Picture sizes before each layer and after the last: every layer takes h to ceil(h / 2)."""
        sizes = [(height, width)]
        for _ in self.channels:
            height, width = math.ceil(height / 2), math.ceil(width / 2)
            sizes.append((height, width))
        return sizes


def _check_image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError(
            f"network: Conv takes images of shape (C, H, W), got examples of shape {tuple(shape)}; use network=mlp"
        )
    return shape[0], shape[1], shape[2]


class _ConvEncoder(Encoder):
    def __init__(self, spec: Conv, shape: tuple[int, int, int], context_dim: int, condition: Condition) -> None:
        super().__init__()
        layers = StackBuilder(context_dim, condition)
        channels = layers.begin(shape[0], len(spec.channels))
        for level, width in enumerate(spec.channels, 2):
            # Kernel 3 with padding 1 and stride 2 takes h to ceil(h / 2) for every h.
            layers.add(nn.Conv2d(channels, width, 3, 2, 1))
            layers.activate(activation(spec.activation), width, f"C{level}")
            channels = width
        layers.add(nn.Flatten())
        flat = channels * math.prod(spec.sizes(*shape[1:])[-1])
        self.num_features = add_hidden_layers(layers, flat, spec.hidden_dims, spec.activation)
        self.layers = layers.build()
        self.context_dim = context_dim

    def features(self, x: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """C2, C3, … and F1: each layer after its activation."""
        return self.layers.features(x, context)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.layers(x, context)


def _decoder(spec: Conv, latent_dim: int, shape: tuple[int, int, int], layers: StackBuilder) -> Stack:
    sizes = spec.sizes(*shape[1:])[::-1]
    channels = (*reversed(spec.channels), shape[0])
    start = (channels[0], *sizes[0])
    features = layers.begin(latent_dim, len(channels))
    features = add_hidden_layers(layers, features, spec.hidden_dims, spec.activation)
    layers.add(nn.Linear(features, math.prod(start)), nn.Unflatten(-1, start))
    for i, (before, after) in enumerate(itertools.pairwise(sizes)):
        # A transposed convolution returns 2h - 1 + output_padding: 0 for odd sizes, 1 for even ones.
        extra = (after[0] - (2 * before[0] - 1), after[1] - (2 * before[1] - 1))
        layers.activate(activation(spec.activation), channels[i])
        layers.add(nn.ConvTranspose2d(channels[i], channels[i + 1], 3, 2, 1, output_padding=extra))
    return layers.build()
