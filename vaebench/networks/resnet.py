"""Residual networks over images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from vaebench.messages import NamedArguments, check_range
from vaebench.networks.conditioning import Condition, Stack, StackBuilder
from vaebench.networks.images import Pool, Size, add_pool, check_image, check_pool, group_norm, sizes_of
from vaebench.networks.mlp import add_hidden_layers
from vaebench.networks.network import Encoder, GridEncoder, StackEncoder, activation, check_widths, gates
from vaebench.networks.residual import pre_activation


@dataclass(frozen=True)
class ResNet(NamedArguments):
    """Pre-activation residual blocks with GroupNorm; each level halves the picture, and the decoder mirrors it.

    The encoder halves by stride 2; the decoder doubles every pixel and convolves, which leaves no checkerboard, and
    returns exactly the encoder's sequence of sizes.

    References:
        Identity Mappings in Deep Residual Networks (He et al., 2016), https://arxiv.org/abs/1603.05027; Group
        Normalization (Wu and He, 2018), https://arxiv.org/abs/1803.08494
    Deviations:
        GroupNorm instead of BatchNorm: an example's loss does not depend on the others of its batch.
    Args:
        channels: Channels of the levels, in the order of the data's flow.
        num_blocks: Residual blocks in each level, of which one changes the size, >= 1.
        hidden_dim: Width of the fully connected layer between the blocks and the latent; 0 for none.
        activation: One of elu, gelu, leaky_relu, relu, selu, silu, softplus, tanh.
        pool: `flatten` keeps where in the picture a feature was seen, `gap` averages over the picture.
    """

    channels: Sequence[int] = (32, 64)
    num_blocks: int = 1
    hidden_dim: int = 256
    activation: str = "silu"
    pool: Pool = "flatten"

    def __post_init__(self) -> None:
        if not self.channels:
            raise ValueError("channels must name at least one level, got []")
        check_widths("channels", tuple(self.channels))
        check_range("num_blocks", self.num_blocks, at_least=1, whole=True)
        check_range("hidden_dim", self.hidden_dim, at_least=0, whole=True)
        check_pool(self.pool)
        activation(self.activation)
        if gates(self.activation) > 1:
            raise ValueError(f"activation: ResNet takes no '{self.activation}', whose gate doubles the channels")

    @property
    def hidden_dims(self) -> tuple[int, ...]:
        """Widths of the fully connected layers."""
        return (self.hidden_dim,) if self.hidden_dim else ()

    def encoder(self, shape: tuple[int, ...], context_dim: int = 0, condition: Condition = "concat") -> Encoder:
        """Return a trunk (B, C, H, W), context (B, context_dim) -> (B, F).

        Raises:
            ValueError: if `shape` is not (C, H, W).
        """
        layers = StackBuilder(context_dim, condition)
        size = self._add_down(layers, check_image(shape, "ResNet"), context_dim, condition)
        features = add_pool(layers, self.pool, self.channels[-1], size)
        features = add_hidden_layers(layers, features, self.hidden_dims, self.activation)
        return StackEncoder(layers.build(), features)

    def decoder(
        self, latent_dim: int, shape: tuple[int, ...], context_dim: int = 0, condition: Condition = "concat"
    ) -> Stack:
        """Return a module (B, latent_dim), context (B, context_dim) -> (B, C, H, W).

        Raises:
            ValueError: if `shape` is not (C, H, W).
        """
        image = check_image(shape, "ResNet")
        layers = StackBuilder(context_dim, condition)
        features = layers.begin(latent_dim, len(self.channels))
        features = add_hidden_layers(layers, features, self.hidden_dims[::-1], self.activation)
        start = (self.channels[-1], *self.sizes(*image[1:])[-1])
        layers.add(nn.Linear(features, math.prod(start)), nn.Unflatten(-1, start))
        self._add_up(layers, image, context_dim, condition)
        return layers.build()

    def grid_encoder(self, shape: tuple[int, ...]) -> GridEncoder:
        """Return the blocks alone: (B, C, H, W) -> (B, F, h, w).

        Raises:
            ValueError: if `shape` is not (C, H, W).
        """
        layers = StackBuilder(0, "concat")
        size = self._add_down(layers, check_image(shape, "ResNet"), 0, "concat")
        return GridEncoder(layers.build(), self.channels[-1], size)

    def grid_decoder(self, latent_channels: int, shape: tuple[int, ...]) -> Stack:
        """Return a module (B, latent_channels, h, w) -> (B, C, H, W), with h and w as `grid_encoder` returns them.

        Raises:
            ValueError: if `shape` is not (C, H, W).
        """
        image = check_image(shape, "ResNet")
        layers = StackBuilder(0, "concat")
        layers.add(nn.Conv2d(latent_channels, self.channels[-1], 3, 1, 1))
        self._add_up(layers, image, 0, "concat")
        return layers.build()

    def sizes(self, height: int, width: int) -> list[Size]:
        """Picture sizes before each level and after the last: every level takes h to ceil(h / 2)."""
        return sizes_of((height, width), (2,) * len(self.channels))

    def _add_down(
        self, layers: StackBuilder, shape: tuple[int, int, int], context_dim: int, condition: Condition
    ) -> Size:
        layers.add(nn.Conv2d(layers.begin(shape[0], len(self.channels)), self.channels[0], 3, 1, 1))
        before = self.channels[0]
        for level, width in enumerate(self.channels, 2):
            for number in range(self.num_blocks):
                stride = 2 if number == 0 else 1
                layers.add(pre_activation(before, width, self.activation, context_dim, condition, stride=stride))
                before = width
            if level <= len(self.channels):
                layers.level(f"C{level}")
        layers.add(group_norm(before))
        layers.activate(activation(self.activation), before, f"C{len(self.channels) + 1}")
        return self.sizes(*shape[1:])[-1]

    def _add_up(
        self, layers: StackBuilder, shape: tuple[int, int, int], context_dim: int, condition: Condition
    ) -> None:
        widths = [*self.channels[::-1], self.channels[0]]
        for (before, after), up in zip(
            itertools.pairwise(widths), itertools.pairwise(self.sizes(*shape[1:])[::-1]), strict=True
        ):
            for _ in range(self.num_blocks - 1):
                layers.add(pre_activation(before, before, self.activation, context_dim, condition))
            layers.add(pre_activation(before, after, self.activation, context_dim, condition, up=up))
        layers.add(group_norm(widths[-1]))
        layers.activate(activation(self.activation), widths[-1])
        layers.add(nn.Conv2d(widths[-1], shape[0], 3, 1, 1))
