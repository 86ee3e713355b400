"""Plain convolutional networks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from vaebench.messages import NamedArguments, check_range, did_you_mean
from vaebench.networks.conditioning import Condition, Stack, StackBuilder
from vaebench.networks.images import (
    Pool,
    Size,
    add_convolution,
    add_pool,
    add_transposed_convolution,
    check_image,
    check_pool,
    group_norm,
    sizes_of,
)
from vaebench.networks.mlp import add_hidden_layers
from vaebench.networks.network import Encoder, GridEncoder, StackEncoder, activation, check_widths, gates
from vaebench.networks.residual import bottleneck

Norm = Literal["none", "group"]


@dataclass(frozen=True)
class Conv(NamedArguments):
    """Convolutions that each halve the picture, then fully connected layers; mirrored in the decoder.

    The decoder returns exactly the encoder's sequence of sizes, for any height and width, so nothing is resized.

    References:
        beta-VAE (Higgins et al., 2017), https://openreview.net/forum?id=Sy2fzU9gl, whose widths for 64 x 64 are
        `channels: [32, 32, 64, 64]` and `hidden_dim: 256`
    Deviations:
        Kernel 3 instead of 4.
    Args:
        channels: Output channels of the encoder's layers, in the order of the data's flow.
        hidden_dim: Width of the fully connected layer between convolutions and latent, or a list of widths; 0 for none.
        activation: One of elu, gelu, glu, leaky_relu, none, relu, selu, silu, softplus, tanh.
        kernel_size: Of every layer, or a list with one for each; at least the stride.
        stride: Likewise; a layer takes a height h to ceil(h / stride).
        decoder_channels: Input channels of the decoder's transposed convolutions, in the order of the data's flow;
            None mirrors the encoder.
        decoder_kernel_size: Of the decoder's layers; None mirrors the encoder.
        decoder_stride: Likewise.
        norm: `group` normalises before every activation of a convolution.
        num_blocks: Residual blocks between the last convolution and what follows, and in the mirror.
        block_channels: Channels within a block.
        pool: `flatten` keeps where in the picture a feature was seen, `gap` averages over the picture.
    """

    channels: Sequence[int] = (32, 64)
    hidden_dim: int | Sequence[int] = 256
    activation: str = "relu"
    kernel_size: int | Sequence[int] = 3
    stride: int | Sequence[int] = 2
    decoder_channels: Sequence[int] | None = None
    decoder_kernel_size: int | Sequence[int] | None = None
    decoder_stride: int | Sequence[int] | None = None
    norm: Norm = "none"
    num_blocks: int = 0
    block_channels: int = 32
    pool: Pool = "flatten"

    def __post_init__(self) -> None:
        for name, widths in (("channels", self.channels), ("decoder_channels", self._decoder_channels)):
            if not widths:
                raise ValueError(f"{name} must name at least one layer, got []")
            check_widths(name, tuple(widths))
        if isinstance(self.hidden_dim, int):
            check_range("hidden_dim", self.hidden_dim, at_least=0, whole=True)
        check_widths("hidden_dim", self.hidden_dims)
        self._check_kernels("", self.kernel_size, self.stride, len(self.channels))
        self._check_kernels("decoder_", self._decoder_kernels, self._decoder_strides, len(self._decoder_channels))
        if self.norm not in ("none", "group"):
            raise ValueError(f"norm: unknown name '{self.norm}'{did_you_mean(self.norm, ('none', 'group'))}")
        check_range("num_blocks", self.num_blocks, at_least=0, whole=True)
        check_range("block_channels", self.block_channels, at_least=1, whole=True)
        check_pool(self.pool)
        activation(self.activation)

    def _check_kernels(
        self, prefix: str, kernel_size: int | Sequence[int], stride: int | Sequence[int], num_layers: int
    ) -> None:
        for name, given in ((f"{prefix}kernel_size", kernel_size), (f"{prefix}stride", stride)):
            if not isinstance(given, int) and len(given) != num_layers:
                raise ValueError(f"{name} must have one entry for each of {num_layers} layers, got {list(given)}")
            check_widths(name, _each(given, num_layers))
        for kernel, step in zip(_each(kernel_size, num_layers), _each(stride, num_layers), strict=True):
            if kernel < step:
                raise ValueError(
                    f"{prefix}kernel_size must be at least the stride {step}, else pixels are not seen; got {kernel}"
                )

    @property
    def hidden_dims(self) -> tuple[int, ...]:
        """Widths of the encoder's fully connected layers."""
        if isinstance(self.hidden_dim, int):
            return (self.hidden_dim,) if self.hidden_dim else ()
        return tuple(self.hidden_dim)

    @property
    def _decoder_channels(self) -> Sequence[int]:
        return self.channels[::-1] if self.decoder_channels is None else self.decoder_channels

    @property
    def _decoder_kernels(self) -> int | Sequence[int]:
        mirrored = self.kernel_size if isinstance(self.kernel_size, int) else self.kernel_size[::-1]
        return mirrored if self.decoder_kernel_size is None else self.decoder_kernel_size

    @property
    def _decoder_strides(self) -> int | Sequence[int]:
        mirrored = self.stride if isinstance(self.stride, int) else self.stride[::-1]
        return mirrored if self.decoder_stride is None else self.decoder_stride

    def encoder(self, shape: tuple[int, ...], context_dim: int = 0, condition: Condition = "concat") -> Encoder:
        """Return a trunk (B, C, H, W), context (B, context_dim) -> (B, F).

        Raises:
            ValueError: if `shape` is not (C, H, W).
        """
        image = check_image(shape, "Conv")
        layers = StackBuilder(context_dim, condition)
        channels, size = self._add_down(layers, image)
        features = add_pool(layers, self.pool, channels, size)
        features = add_hidden_layers(layers, features, self.hidden_dims, self.activation)
        return StackEncoder(layers.build(), features)

    def decoder(
        self, latent_dim: int, shape: tuple[int, ...], context_dim: int = 0, condition: Condition = "concat"
    ) -> Stack:
        """Return a module (B, latent_dim), context (B, context_dim) -> (B, C, H, W).

        Raises:
            ValueError: if `shape` is not (C, H, W).
        """
        image = check_image(shape, "Conv")
        layers = StackBuilder(context_dim, condition)
        features = layers.begin(latent_dim, len(self._decoder_channels))
        features = add_hidden_layers(layers, features, self.hidden_dims[::-1], self.activation)
        start = (self._decoder_channels[0] * gates(self.activation), *self.decoder_sizes(*image[1:])[0])
        layers.add(nn.Linear(features, math.prod(start)), nn.Unflatten(-1, start))
        self._add_up(layers, image)
        return layers.build()

    def grid_encoder(self, shape: tuple[int, ...]) -> GridEncoder:
        """Return the convolutions alone: (B, C, H, W) -> (B, F, h, w).

        Raises:
            ValueError: if `shape` is not (C, H, W).
        """
        layers = StackBuilder(0, "concat")
        channels, size = self._add_down(layers, check_image(shape, "Conv"))
        return GridEncoder(layers.build(), channels, size)

    def grid_decoder(self, latent_channels: int, shape: tuple[int, ...]) -> Stack:
        """Return a module (B, latent_channels, h, w) -> (B, C, H, W), with h and w as `grid_encoder` returns them.

        Raises:
            ValueError: if `shape` is not (C, H, W), or the decoder is not the encoder's mirror.
        """
        image = check_image(shape, "Conv")
        encoded, start = (
            sizes_of(image[1:], _each(self.stride, len(self.channels)))[-1],
            self.decoder_sizes(*image[1:])[0],
        )
        if encoded != start:
            raise ValueError(
                f"decoder_stride must take the encoder's {encoded} back to {image[1:]}; it starts at {start}"
            )
        layers = StackBuilder(0, "concat")
        layers.add(nn.Conv2d(latent_channels, self._decoder_channels[0] * gates(self.activation), 3, 1, 1))
        self._add_up(layers, image)
        return layers.build()

    def sizes(self, height: int, width: int) -> list[Size]:
        """Picture sizes before each of the encoder's layers and after the last."""
        return sizes_of((height, width), _each(self.stride, len(self.channels)))

    def decoder_sizes(self, height: int, width: int) -> list[Size]:
        """Picture sizes before each of the decoder's layers and after the last."""
        return sizes_of((height, width), _each(self._decoder_strides, len(self._decoder_channels))[::-1])[::-1]

    def _add_down(self, layers: StackBuilder, shape: tuple[int, int, int]) -> tuple[int, Size]:
        num_layers = len(self.channels)
        before, size = layers.begin(shape[0], num_layers), shape[1:]
        level = 1
        for width, kernel, stride in zip(
            self.channels, _each(self.kernel_size, num_layers), _each(self.stride, num_layers), strict=True
        ):
            add_convolution(layers, before, width * gates(self.activation), kernel, stride, size)
            level += round(math.log2(stride))
            self._add_activation(layers, width, f"C{level}")
            before, size = width, sizes_of(size, [stride])[-1]
        self._add_blocks(layers, before)
        return before, size

    def _add_up(self, layers: StackBuilder, shape: tuple[int, int, int]) -> None:
        num_layers = len(self._decoder_channels)
        steps = zip(
            self._decoder_channels,
            [*(width * gates(self.activation) for width in self._decoder_channels[1:]), shape[0]],
            _each(self._decoder_kernels, num_layers),
            _each(self._decoder_strides, num_layers),
            itertools.pairwise(self.decoder_sizes(*shape[1:])),
            strict=True,
        )
        for number, (before, after, kernel, stride, (size, target)) in enumerate(steps):
            self._add_activation(layers, before)
            if number == 0:
                self._add_blocks(layers, before)
            add_transposed_convolution(layers, before, after, kernel, stride, size, target)

    def _add_activation(self, layers: StackBuilder, channels: int, level: str | None = None) -> None:
        channels = channels * gates(self.activation)
        if self.norm == "group":
            layers.add(group_norm(channels))
        layers.activate(activation(self.activation), channels, level)

    def _add_blocks(self, layers: StackBuilder, channels: int) -> None:
        if self.num_blocks:
            layers.add(*(bottleneck(channels, self.block_channels) for _ in range(self.num_blocks)), nn.ReLU())


def _each(given: int | Sequence[int], num_layers: int) -> tuple[int, ...]:
    return (given,) * num_layers if isinstance(given, int) else tuple(given)
