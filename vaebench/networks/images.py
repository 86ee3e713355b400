"""Layers of image networks whose sizes are exact: a stride s takes h to ceil(h / s), and its mirror takes it back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

from torch import nn

from vaebench.messages import did_you_mean
from vaebench.networks.conditioning import StackBuilder

Pool = Literal["flatten", "gap"]
Size = tuple[int, int]


def check_image(shape: tuple[int, ...], name: str) -> tuple[int, int, int]:
    """Return (C, H, W).

    Raises:
        ValueError: if the shape is another; the sentence begins with the network's name.
    """
    if len(shape) != 3:
        raise ValueError(
            f"network: {name} takes images of shape (C, H, W), got examples of shape {tuple(shape)}; "
            "use model/network=mlp"
        )
    return shape[0], shape[1], shape[2]


def sizes_of(size: Size, strides: Sequence[int]) -> list[Size]:
    """Image sizes before each layer and after the last."""
    sizes = [size]
    for stride in strides:
        sizes.append((math.ceil(sizes[-1][0] / stride), math.ceil(sizes[-1][1] / stride)))
    return sizes


def add_convolution(layers: StackBuilder, before: int, after: int, kernel_size: int, stride: int, size: Size) -> None:
    """Append a convolution that takes `size` to ceil(size / stride), with zeros to the right where these are needed."""
    left = (kernel_size - 1) // 2
    missing = [max((math.ceil(n / stride) - 1) * stride + kernel_size - n - 2 * left, 0) for n in size]
    if any(missing):  # even kernels on sizes that the stride does not divide fall short
        layers.add(nn.ZeroPad2d((0, missing[1], 0, missing[0])))
    layers.add(nn.Conv2d(before, after, kernel_size, stride, left))


def add_transposed_convolution(
    layers: StackBuilder, before: int, after: int, kernel_size: int, stride: int, size: Size, target: Size
) -> None:
    """Append a transposed convolution from `size` to `target`, whose ceil(target / stride) is `size`."""
    left = (kernel_size - 1) // 2
    short = [goal - ((n - 1) * stride + kernel_size - 2 * left) for n, goal in zip(size, target, strict=True)]
    padding = (max(short[0], 0), max(short[1], 0))
    layers.add(nn.ConvTranspose2d(before, after, kernel_size, stride, left, output_padding=padding))
    add_crop(layers, min(short[0], 0), min(short[1], 0))


def add_crop(layers: StackBuilder, height: int, width: int) -> None:
    """Append the removal of rows at the bottom and columns at the right; both numbers are at most 0."""
    if height or width:
        layers.add(nn.ZeroPad2d((0, width, 0, height)))


def add_pool(layers: StackBuilder, pool: str, channels: int, size: Size) -> int:
    """Append what makes a vector of a grid; return its length."""
    layers.add(*([nn.AdaptiveAvgPool2d(1)] if pool == "gap" else []), nn.Flatten())
    return channels if pool == "gap" else channels * math.prod(size)


def check_pool(pool: str) -> None:
    """Refuse an unknown pooling.

    Raises:
        ValueError: naming the nearest.
    """
    if pool not in get_args(Pool):
        raise ValueError(f"pool: unknown name '{pool}'{did_you_mean(pool, get_args(Pool))}")


def group_norm(channels: int) -> nn.GroupNorm:
    """At most 32 groups of at least 4 channels, so that a picture of one pixel keeps what distinguishes it."""
    groups = max(n for n in range(1, 33) if channels % n == 0 and (channels // n >= 4 or n == 1))
    return nn.GroupNorm(groups, channels)
