"""Common parts of hierarchies of pictures: levels of halved size, and the likelihood's parameters from the finest."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaebench.messages import check_range
from vaebench.networks.hierarchy import BottomUp, checkpointed
from vaebench.networks.images import Size, check_image, sizes_of
from vaebench.networks.network import check_widths


def check_levels(strides: Sequence[int], **by_level: Sequence[int]) -> None:
    """Refuse lists that do not have one entry for each level, of which there is one more than strides.

    Raises:
        ValueError: naming the list.
    """
    check_widths("strides", tuple(strides))
    num_levels = len(strides) + 1
    for name, values in by_level.items():
        if len(values) != num_levels:
            raise ValueError(
                f"{name} must have one entry for each of {num_levels} levels, one more than strides; got {list(values)}"
            )
        for number, value in enumerate(values):
            check_range(
                f"{name}[{number}]", value, at_least=0 if name in ("groups", "encoder_blocks") else 1, whole=True
            )


def check_groups(groups: Sequence[int]) -> None:
    """Refuse a hierarchy that has no group at its coarsest level.

    Raises:
        ValueError: naming the argument.
    """
    if groups[-1] < 1:
        raise ValueError(f"groups must end with at least 1, those of the coarsest level; got {list(groups)}")


def level_sizes(shape: tuple[int, ...], strides: Sequence[int], name: str) -> list[Size]:
    """Sizes of the levels, the finest first.

    Raises:
        ValueError: if the shape is not (C, H, W), or a level would only repeat a picture of one pixel.
    """
    size = check_image(shape, name)[1:]
    sizes = sizes_of(size, strides)
    if any(before == (1, 1) for before, _ in itertools.pairwise(sizes)):
        raise ValueError(
            f"strides: pictures of {size[0]}x{size[1]} are one pixel after {sizes.index((1, 1))} of {len(strides)} "
            f"strides {list(strides)}; give fewer, and as many entries of channels, groups and encoder_blocks"
        )
    return sizes


class LevelsUp(BottomUp):
    """A chain of blocks, some of which are heard by groups.

    Args:
        blocks: In the order of the data's flow.
        heard: For each group, the top group first, the block whose output it gets.
    """

    def __init__(self, blocks: Sequence[nn.Module], heard: Sequence[int]) -> None:
        super().__init__()
        self.blocks, self.heard = nn.ModuleList(blocks), list(heard)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return what is said to each group, each of shape (B, C, h, w)."""
        found = {}
        for number, block in enumerate(self.blocks):
            x = checkpointed(block, x) if self.is_checkpointed else block(x)
            if number in self.heard:
                found[number] = x
        return [found[number] for number in self.heard]


class ToParameters(nn.Module):
    """Reshape channels (B, F, H, W) to a likelihood's parameters (B, *params_shape), which end with (H, W)."""

    def __init__(self, params_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.params_shape = params_shape

    def forward(self, x: Tensor) -> Tensor:
        """Return the same numbers, shape (B, *params_shape)."""
        return x.reshape(len(x), *self.params_shape)


def params_channels(params_shape: tuple[int, ...], size: Size) -> int:
    """Channels of a picture of `size` that holds a likelihood's parameters."""
    return math.prod(params_shape) // math.prod(size)


def enlarged(x: Tensor, size: Size) -> Tensor:
    """Repeat the pixels of x, shape (B, C, h, w), up to shape (B, C, *size)."""
    return x if tuple(x.shape[2:]) == size else F.interpolate(x, size=size, mode="nearest")


def scale_weights(convolution: nn.Conv2d, factor: float) -> nn.Conv2d:
    """Multiply a convolution's weights by a factor, and set its bias to 0; return it."""
    with torch.no_grad():
        convolution.weight.mul_(factor)
        if convolution.bias is not None:
            convolution.bias.zero_()
    return convolution
