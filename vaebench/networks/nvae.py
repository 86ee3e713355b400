"""The hierarchy of residual cells with squeeze and excitation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vaebench.messages import NamedArguments, check_range
from vaebench.networks.batch_norm import BatchNorm
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
)

MOMENTUM = 0.05
LEAST_SCALE = 1e-2  # added to a prior's exp(log sigma)


@dataclass(frozen=True)
class NVAENetwork(NamedArguments):
    r"""The networks of NVAE (Vahdat and Kautz, 2020, section 3 and figures 2 and 3).

    Upwards residual cells (batch normalisation, Swish, 3x3 convolution, twice); downwards cells that widen by a 1x1
    convolution, filter each channel by 5x5 and come back by 1x1, each with batch normalisation. Every cell ends with
    squeeze and excitation, and adds a tenth of its output to its input. The prior of a group is a 1x1 convolution of
    the state; the posterior says how far it is from the prior:

    .. math:: p = N(\mu, \sigma), \quad q = N(\mu + \Delta\mu, \sigma \Delta\sigma)      (section 3.2)

    so that a dimension costs :math:`\frac12 (\Delta\mu^2 / \sigma^2 + \Delta\sigma^2 - \log \Delta\sigma^2 - 1)`
    (eq. 2). Of the top group p is N(0, I). Means, log-scales and their differences pass through 5 tanh(v / 5), and
    0.01 is added to each prior's scale.

    References:
        NVAE: A Deep Hierarchical Variational Autoencoder (Vahdat and Kautz, 2020), https://arxiv.org/abs/2007.03898
    Deviations:
        No weight normalisation, and no flows in the posterior (the paper's with 0 flow layers); running means of
        batch normalisation are used as they are, instead of being estimated anew for samples. A level is entered by a
        strided 1x1 convolution where the authors join four shifted ones. The differences are clamped, where their code
        clamps the sums mu + Delta mu and log sigma + Delta log sigma, and then adds 0.01 to the posterior's scale too:
        with eq. 2 as it stands no difference means no rate.
    Args:
        channels: Channels of each level, the finest first.
        groups: Groups of each level, the finest first; the coarsest has at least 1. A fine level with 0 has only the
            cells before and after the hierarchy.
        strides: By how much a level is smaller than the last: one fewer than levels.
        num_cells: Residual cells for each group on either side, and on either side of a level, >= 1.
        latent_channels: Channels of each group's latents.
        expansion: By how much the cells on the way down widen inside, >= 1.
    """

    channels: Sequence[int] = (16, 32, 64)
    groups: Sequence[int] = (0, 4, 2)
    strides: Sequence[int] = (2, 2)
    num_cells: int = 1
    latent_channels: int = 8
    expansion: int = 3

    def __post_init__(self) -> None:
        check_levels(self.strides, channels=self.channels, groups=self.groups)
        check_groups(self.groups)
        for name in ("num_cells", "latent_channels", "expansion"):
            check_range(name, getattr(self, name), at_least=1, whole=True)

    def bottom_up(self, shape: tuple[int, ...]) -> BottomUp:
        """Return a module (B, C, H, W) -> features (B, channels, h, w) for each group, the top group first.

        Raises:
            ValueError: if `shape` is not (C, H, W), or too small for the strides.
        """
        level_sizes(shape, self.strides, type(self).__name__)
        blocks: list[nn.Module] = [nn.Conv2d(shape[0], self.channels[0], 3, 1, 1)]
        heard = []
        for level, (width, count) in enumerate(zip(self.channels, self.groups, strict=True)):
            if level > 0:
                blocks.append(_cell_up(self.channels[level - 1], width, self.strides[level - 1]))
            for _ in range(max(count, 1)):
                blocks += [_cell_up(width, width) for _ in range(self.num_cells)]
                heard += [len(blocks) - 1] * (count > 0)
        return LevelsUp(blocks, heard[::-1])

    def top_down(self, shape: tuple[int, ...], params_shape: tuple[int, ...]) -> TopDown:
        """Return the groups, from the coarsest level to the finest, and the layers to (B, *params_shape)."""
        sizes = level_sizes(shape, self.strides, type(self).__name__)
        groups: list[LatentGroup] = []
        waiting: list[nn.Module] = []  # cells between the last group and the next
        for level in reversed(range(len(sizes))):
            width, size = self.channels[level], sizes[level]
            if level + 1 < len(sizes):
                waiting.append(self._cell_down(self.channels[level + 1], width, size))
            for _ in range(self.groups[level]):
                waiting += [self._cell_down(width, width, size) for _ in range(self.num_cells)] if groups else []
                groups.append(_NVAEGroup(waiting, width, self.latent_channels, size, is_top=not groups))
                waiting = []
            if self.groups[level] == 0:
                waiting += [self._cell_down(width, width, size) for _ in range(self.num_cells)]
        last = nn.Conv2d(self.channels[0], params_channels(params_shape, sizes[0]), 3, 1, 1)
        output = nn.Sequential(*waiting, nn.ELU(), last, ToParameters(params_shape))
        return TopDown(groups, output, nn.Parameter(torch.randn(self.channels[-1], *sizes[-1])))

    def _cell_down(self, before: int, after: int, size: Size) -> nn.Module:
        inner = self.expansion * before
        layers = [
            BatchNorm(before, MOMENTUM),
            nn.Conv2d(before, inner, 1, bias=False),
            BatchNorm(inner, MOMENTUM),
            nn.SiLU(),
            nn.Conv2d(inner, inner, 5, padding=2, groups=inner, bias=False),
            BatchNorm(inner, MOMENTUM),
            nn.SiLU(),
            nn.Conv2d(inner, after, 1, bias=False),
            BatchNorm(after, MOMENTUM),
        ]
        return _Cell(layers, nn.Conv2d(before, after, 1) if before != after else nn.Identity(), after, size)


def _cell_up(before: int, after: int, stride: int = 1) -> nn.Module:
    layers = [
        BatchNorm(before, MOMENTUM),
        nn.SiLU(),
        nn.Conv2d(before, after, 3, stride, 1),
        BatchNorm(after, MOMENTUM),
        nn.SiLU(),
        nn.Conv2d(after, after, 3, 1, 1),
    ]
    return _Cell(
        layers, nn.Conv2d(before, after, 1, stride) if (before, stride) != (after, 1) else nn.Identity(), after
    )


class _Cell(nn.Module):
    """Layers on a residual path, with squeeze and excitation at their end; `size` is that of a coarser level's cell."""

    def __init__(self, layers: list[nn.Module], short: nn.Module, channels: int, size: Size | None = None) -> None:
        super().__init__()
        self.size = size
        hidden = max(channels // 16, 4)
        gate = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1)]
        self.layers, self.short, self.gate = nn.Sequential(*layers), short, nn.Sequential(*gate, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.size is None else enlarged(x, self.size)
        y = self.layers(x)
        return self.short(x) + 0.1 * self.gate(y) * y


class _NVAEGroup(LatentGroup):
    """Its prior's convolution is missing at the top."""

    def __init__(self, cells: Sequence[nn.Module], width: int, channels: int, size: Size, is_top: bool) -> None:
        super().__init__()
        self.shape = (channels, *size)
        self.cells = nn.Sequential(*cells)
        self.prior_layers = None if is_top else nn.Sequential(nn.ELU(), nn.Conv2d(width, 2 * channels, 1))
        self.from_state = None if is_top else nn.Conv2d(width, width, 1)
        heard = nn.Sequential(nn.ELU(), nn.Conv2d(width, width, 1), nn.ELU()) if is_top else nn.Identity()
        self.heard, self.difference = heard, nn.Conv2d(width, 2 * channels, 3, 1, 1)
        self.combine = nn.Conv2d(width + channels, width, 1)

    def begin(self, state: Tensor) -> Tensor:
        return self.cells(state)

    def prior(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.prior_layers is None:
            zeros = state.new_zeros(len(state), *self.shape)
            return zeros, zeros, state
        mean, raw = self.prior_layers(state).chunk(2, 1)
        return softly_clamped(mean), 2 * (softly_clamped(raw).exp() + LEAST_SCALE).log(), state

    def posterior(self, state: Tensor, evidence: Tensor, mean: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.heard(evidence)
        seen = seen if self.from_state is None else seen + self.from_state(state)
        of_mean, of_log_scale = self.difference(seen).chunk(2, 1)
        return mean + softly_clamped(of_mean), log_var + 2 * softly_clamped(of_log_scale)

    def forward(self, state: Tensor, z: Tensor) -> Tensor:
        return self.combine(torch.cat([state, z], 1))


def softly_clamped(v: Tensor) -> Tensor:
    """Return 5 tanh(v / 5), same shape."""
    return 5 * torch.tanh(v / 5)
