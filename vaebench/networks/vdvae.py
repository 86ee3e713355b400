"""The very deep hierarchy of residual bottleneck blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaebench.messages import NamedArguments, check_range
from vaebench.networks.hierarchy import BottomUp, LatentGroup, TopDown
from vaebench.networks.images import Size
from vaebench.networks.levels import (
    LevelsUp,
    ToParameters,
    check_groups,
    check_levels,
    enlarged,
    level_sizes,
    params_channels,
    scale_weights,
)

LOG_VAR_BOUND = 10.0


@dataclass(frozen=True)
class VDVAENetwork(NamedArguments):
    r"""The networks of the very deep VAE (Child, 2021, section 3 and figure 3).

    Upwards residual blocks, pooled between levels. Downwards each group is a block that adds to a state x:

    .. math:: q = \text{block}([x, e]), \quad (p, h) = \text{block}(x), \quad x \leftarrow x + h + W z, \quad
              x \leftarrow x + \text{block}(x)

    with e what the bottom-up network computed at that level. A level begins with a learned picture plus the state from
    above, its pixels repeated. A block has convolutions 1x1, 3x3, 3x3, 1x1 behind GELUs; 3x3 is 1x1 where a picture has
    at most 2 pixels to a side. So that depth does no harm at the start, the last convolution of each prior is zero, and
    of N blocks the maps W and the last convolutions of residual blocks are scaled by 1 / sqrt(N).

    References:
        Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images (Child, 2021),
        https://arxiv.org/abs/2011.10650
    Deviations:
        Log-variances pass through 10 tanh(v / 10). Where levels have different channels a 1x1 convolution stands
        between them, in place of padding with zeros.
    Args:
        channels: Channels of each level, the finest first.
        groups: Groups of each level, the finest first; the coarsest has at least 1.
        encoder_blocks: Residual blocks of each level on the way up, the finest first, besides that which is pooled.
        strides: By how much a level is smaller than the last: one fewer than levels.
        latent_channels: Channels of each group's latents.
        bottleneck: Channels inside a block as a share of its level's, in (0, 1].
    """

    channels: Sequence[int] = (32, 32, 32, 32)
    groups: Sequence[int] = (2, 4, 4, 2)
    encoder_blocks: Sequence[int] = (1, 1, 1, 1)
    strides: Sequence[int] = (2, 2, 2)
    latent_channels: int = 16
    bottleneck: float = 0.25

    def __post_init__(self) -> None:
        check_levels(self.strides, channels=self.channels, groups=self.groups, encoder_blocks=self.encoder_blocks)
        check_groups(self.groups)
        check_range("latent_channels", self.latent_channels, at_least=1, whole=True)
        check_range("bottleneck", self.bottleneck, above=0, at_most=1)

    def bottom_up(self, shape: tuple[int, ...]) -> BottomUp:
        """Return a module (B, C, H, W) -> features (B, channels, h, w) for each group, the top group first.

        Raises:
            ValueError: if `shape` is not (C, H, W), or too small for the strides.
        """
        sizes = level_sizes(shape, self.strides, type(self).__name__)
        blocks: list[nn.Module] = [scale_weights(nn.Conv2d(shape[0], self.channels[0], 3, 1, 1), 1.0)]
        scale = (sum(self.encoder_blocks) + len(self.strides)) ** -0.5
        heard = []
        for level, (width, size) in enumerate(zip(self.channels, sizes, strict=True)):
            blocks += [
                self._block(width, width, size, scale, is_residual=True) for _ in range(self.encoder_blocks[level])
            ]
            heard += [len(blocks) - 1] * self.groups[level]
            if level < len(self.strides):
                pool = nn.AvgPool2d(self.strides[level], ceil_mode=True)
                blocks.append(nn.Sequential(self._block(width, width, size, scale, is_residual=True), pool))
                if self.channels[level + 1] != width:
                    blocks.append(nn.Conv2d(width, self.channels[level + 1], 1))
        return LevelsUp(blocks, heard[::-1])

    def top_down(self, shape: tuple[int, ...], params_shape: tuple[int, ...]) -> TopDown:
        """Return the groups, from the coarsest level to the finest, and the layers to (B, *params_shape)."""
        sizes = level_sizes(shape, self.strides, type(self).__name__)
        groups: list[LatentGroup] = []
        before = self.channels[-1]
        for level in reversed(range(len(sizes))):
            width, size = self.channels[level], sizes[level]
            start = _Level(before, width, size)
            for number in range(self.groups[level]):
                groups.append(self._group(width, size, start if number == 0 else None))
            if self.groups[level]:
                before = width
        output = nn.Sequential(
            _Level(before, self.channels[0], sizes[0]) if not self.groups[0] else nn.Identity(),
            _Affine(self.channels[0]),
            scale_weights(nn.Conv2d(self.channels[0], params_channels(params_shape, sizes[0]), 1), 1.0),
            ToParameters(params_shape),
        )
        return TopDown(groups, output, torch.zeros(self.channels[-1], *sizes[-1]))

    def _group(self, width: int, size: Size, level: _Level | None) -> LatentGroup:
        scale = sum(self.groups) ** -0.5
        return _VDVAEGroup(
            level,
            posterior=self._block(2 * width, 2 * self.latent_channels, size, 1.0, inner=width),
            prior=self._block(width, 2 * self.latent_channels + width, size, 0.0, inner=width),
            projection=scale_weights(nn.Conv2d(self.latent_channels, width, 1), scale),
            residual=self._block(width, width, size, scale, is_residual=True),
            shape=(self.latent_channels, *size),
        )

    def _block(
        self, before: int, after: int, size: Size, scale: float, inner: int | None = None, is_residual: bool = False
    ) -> _Block:
        width = max(1, int(self.bottleneck * (inner or before)))
        return _Block(before, width, after, 3 if min(size) > 2 else 1, scale, is_residual)


class _Block(nn.Module):
    def __init__(self, before: int, width: int, after: int, kernel_size: int, scale: float, is_residual: bool) -> None:
        super().__init__()
        middle = (nn.Conv2d(width, width, kernel_size, 1, kernel_size // 2) for _ in range(2))
        layers = [nn.Conv2d(before, width, 1), *middle]
        last = scale_weights(nn.Conv2d(width, after, 1), scale)
        self.layers = nn.ModuleList([*(scale_weights(layer, 1.0) for layer in layers), last])
        self.is_residual = is_residual

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.layers:
            y = layer(F.gelu(y))
        return x + y if self.is_residual else y


class _Level(nn.Module):
    """The state that a level begins with."""

    def __init__(self, before: int, width: int, size: Size) -> None:
        super().__init__()
        self.size = size
        self.convolution = nn.Conv2d(before, width, 1) if before != width else nn.Identity()
        self.picture = nn.Parameter(torch.zeros(width, *size))

    def forward(self, state: Tensor) -> Tensor:
        return self.picture + enlarged(self.convolution(state), self.size)


class _Affine(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain, self.bias = nn.Parameter(torch.ones(channels, 1, 1)), nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain + self.bias


class _VDVAEGroup(LatentGroup):
    def __init__(
        self,
        level: _Level | None,
        posterior: _Block,
        prior: _Block,
        projection: nn.Conv2d,
        residual: _Block,
        shape: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.level = level
        self.posterior_block, self.prior_block = posterior, prior
        self.projection, self.residual, self.shape = projection, residual, shape

    def begin(self, state: Tensor) -> Tensor:
        return state if self.level is None else self.level(state)

    def prior(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        channels = self.shape[0]
        mean, raw, h = self.prior_block(state).split((channels, channels, state.shape[1]), 1)
        return mean, _bounded(raw), state + h

    def posterior(self, state: Tensor, evidence: Tensor, mean: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.posterior_block(torch.cat([state, evidence], 1)).chunk(2, 1)
        return mean, _bounded(raw)

    def forward(self, state: Tensor, z: Tensor) -> Tensor:
        return self.residual(state + self.projection(z))


def _bounded(raw: Tensor) -> Tensor:
    return LOG_VAR_BOUND * torch.tanh(2 * raw / LOG_VAR_BOUND)  # the network's output is log sigma
