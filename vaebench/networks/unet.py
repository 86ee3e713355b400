"""U-Nets: encoders with a pyramid of levels C2, C3, …, and decoders that may take these levels and attention maps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from vaebench.messages import NamedArguments, check_range, did_you_mean
from vaebench.networks.attention_maps import AttentionFiLM
from vaebench.networks.conditioning import Condition, Stack, StackBuilder, check_context
from vaebench.networks.images import Size, check_image, group_norm, sizes_of
from vaebench.networks.network import Encoder, activation, gates
from vaebench.networks.residual import pre_activation

MAX_LEVELS = 5  # C2 to C6


@dataclass(frozen=True)
class UNet(NamedArguments):
    """Residual blocks with squeeze-and-excitation and GroupNorm; level Cn has stride 2^(n-1) and base 2^(n-2) channels.

    The decoder mirrors the encoder's sizes exactly, for any height and width. As `model/network=unet` no feature of the
    encoder reaches the decoder; `model=unet_vae` has modes in which they do.

    References:
        U-Net: Convolutional Networks for Biomedical Image Segmentation (Ronneberger et al., 2015),
        https://arxiv.org/abs/1505.04597; NVAE (Vahdat and Kautz, 2020), https://arxiv.org/abs/2007.03898, for
        squeeze-and-excitation in residual blocks
    Deviations:
        GroupNorm instead of BatchNorm: an example's loss does not depend on the others of its batch.
    Args:
        base_channels: Channels of the picture's own level and of C2; every further level has twice as many.
        num_levels: How many levels, 1 to 5: C2 to C6. None takes as many as leave at least two pixels on each side.
        num_blocks: Residual blocks in each level, of which one changes the size, >= 1.
        activation: One of elu, gelu, leaky_relu, relu, selu, silu, softplus, tanh.
    """

    base_channels: int = 32
    num_levels: int | None = None
    num_blocks: int = 1
    activation: str = "silu"

    def __post_init__(self) -> None:
        check_range("base_channels", self.base_channels, at_least=1, whole=True)
        check_range("num_levels", self.num_levels, at_least=1, at_most=MAX_LEVELS, whole=True, or_null=True)
        check_range("num_blocks", self.num_blocks, at_least=1, whole=True)
        activation(self.activation)
        if gates(self.activation) > 1:
            raise ValueError(f"activation: UNet takes no '{self.activation}', whose gate doubles the channels")

    def levels(self, size: Size) -> dict[str, int]:
        """Channels of each level of a picture of this size, by name.

        Raises:
            ValueError: if the picture is too small for `num_levels`.
        """
        smaller = min(size)
        # Each level halves the picture, until the shorter side is a single pixel.
        room = max(math.ceil(math.log2(smaller)), 1)
        if self.num_levels is not None and self.num_levels > room:
            raise ValueError(
                f"num_levels: a picture of {size[0]}x{size[1]} is too small for {self.num_levels} levels, C2 to "
                f"C{self.num_levels + 1}; it has room for {room}"
            )
        wanted = self.num_levels or min(max(math.ceil(math.log2(smaller)) - 1, 1), MAX_LEVELS)
        return {f"C{n + 2}": self.base_channels * 2**n for n in range(wanted)}

    def encoder(self, shape: tuple[int, ...], context_dim: int = 0, condition: Condition = "concat") -> UNetEncoder:
        """Return a trunk (B, C, H, W), context (B, context_dim) -> (B, F).

        Raises:
            ValueError: if `shape` is not (C, H, W), or the picture is too small.
        """
        return UNetEncoder(self, check_image(shape, "UNet"), context_dim, condition)

    def decoder(
        self,
        latent_dim: int,
        shape: tuple[int, ...],
        context_dim: int = 0,
        condition: Condition = "concat",
        skips: Mapping[str, int] | None = None,
        num_slots: int | None = 0,
    ) -> UNetDecoder:
        """Return a module (B, latent_dim), context (B, context_dim) -> (B, C, H, W).

        Args:
            latent_dim: Number of latent dimensions.
            shape: (C, H, W) of what it returns.
            context_dim: Entries of the context.
            condition: How the context enters.
            skips: Channels of the skip of each level that it takes; none by default.
            num_slots: How many attention maps it takes; None learns it from the first call.

        Raises:
            ValueError: if `shape` is not (C, H, W), or the picture is too small.
        """
        image = check_image(shape, "UNet")
        return UNetDecoder(self, latent_dim, image, context_dim, condition, skips or {}, num_slots)


class UNetEncoder(Encoder):
    """The way down: x (B, C, H, W) -> levels C2, C3, …, and features (B, F) of the last.

    Args:
        network: Its description.
        shape: (C, H, W).
        context_dim: Entries of the context, which `film` and `add` inject in every block, `concat` at the input.
        condition: How it enters.

    Attributes:
        level_channels: Channels of each level, by name.
        level_sizes: (h, w) of each level, by name.
    """

    def __init__(self, network: UNet, shape: tuple[int, int, int], context_dim: int, condition: Condition) -> None:
        super().__init__()
        self.shape, self.context_dim = shape, context_dim
        self.level_channels = network.levels(shape[1:])
        sizes = sizes_of(shape[1:], (2,) * len(self.level_channels))
        self.level_sizes = dict(zip(self.level_channels, sizes[1:], strict=True))
        inner = context_dim if condition != "concat" else 0
        stem = StackBuilder(context_dim if condition == "concat" else 0, condition)
        stem.add(nn.Conv2d(stem.begin(shape[0], 1), network.base_channels, 3, 1, 1))
        self.stem = stem.build()
        self.levels = nn.ModuleDict()
        before = network.base_channels
        for name, width in self.level_channels.items():
            level = StackBuilder(inner, condition)
            for number in range(network.num_blocks):
                stride = 2 if number == 0 else 1
                block = pre_activation(before, width, network.activation, inner, condition, stride=stride, squeeze=True)
                level.add(block)
                before = width
            self.levels[name] = level.build()
        self.top = nn.Sequential(group_norm(before), activation(network.activation), nn.Flatten())
        self.num_features = before * math.prod(sizes[-1])

    def features(self, x: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return every level by its name: C2 (B, base, ceil(H / 2), ceil(W / 2)), C3, …; context (B, context_dim).

        Raises:
            ValueError: if the pictures have another shape, or the context does not fit.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"expected pictures of shape (B, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        check_context(context, self.context_dim, len(x))
        h = self.stem(x, context if _context_dim(self.stem) else None)
        found = {}
        for name, level in self.levels.items():
            h = level(h, context if _context_dim(level) else None)
            found[name] = h
        return found

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Features, shape (B, F); arguments as in `features`."""
        return self.with_features(x, context)[0]

    def with_features(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the features (B, F) and all levels by name, of one pass."""
        levels = self.features(x, context)
        return self.top(next(reversed(levels.values()))), levels


class UNetDecoder(nn.Module):
    """The way up: z (B, D) -> the last level's size -> … -> (B, C, H, W), with what each level is given on its way.

    At every level, the lowest included, h becomes h + W skip, and then (1 + gamma) h + beta with gamma and beta from
    the attention maps. Without skips and maps h stays as it is.

    Args:
        network: Its description.
        latent_dim: D.
        shape: (C, H, W) of what it returns.
        context_dim: Entries of the context.
        condition: How it enters.
        skips: Channels of the skip of each level that it takes.
        num_slots: How many attention maps it takes; None learns it from the first call.
    """

    def __init__(
        self,
        network: UNet,
        latent_dim: int,
        shape: tuple[int, int, int],
        context_dim: int,
        condition: Condition,
        skips: Mapping[str, int],
        num_slots: int | None,
    ) -> None:
        super().__init__()
        self.latent_dim, self.context_dim = latent_dim, context_dim
        self.level_channels = network.levels(shape[1:])
        names = list(self.level_channels)[::-1]
        sizes = sizes_of(shape[1:], (2,) * len(names))[::-1]
        self.level_sizes = dict(zip(names, sizes, strict=False))
        check_levels(list(skips), names)
        inner = context_dim if condition != "concat" else 0
        first = (self.level_channels[names[0]], *sizes[0])
        start = StackBuilder(context_dim if condition == "concat" else 0, condition)
        start.add(nn.Linear(start.begin(latent_dim, 1), math.prod(first)), nn.Unflatten(1, first))
        self.start = start.build()
        self.fuse = nn.ModuleDict(
            {name: nn.Conv2d(width, self.level_channels[name], 1) for name, width in skips.items()}
        )
        self.attend = nn.ModuleDict(
            {name: AttentionFiLM(self.level_channels[name], num_slots) for name in names} if num_slots != 0 else {}
        )
        self.levels = nn.ModuleDict()
        widths = [*(self.level_channels[name] for name in names), network.base_channels]
        steps = zip(names, itertools.pairwise(widths), itertools.pairwise(sizes), strict=True)
        for name, (before, after), up in steps:
            level = StackBuilder(inner, condition)
            for _ in range(network.num_blocks):
                level.add(pre_activation(before, before, network.activation, inner, condition, squeeze=True))
            level.add(pre_activation(before, after, network.activation, inner, condition, up=up, squeeze=True))
            self.levels[name] = level.build()
        self.output = nn.Sequential(
            group_norm(widths[-1]), activation(network.activation), nn.Conv2d(widths[-1], shape[0], 3, 1, 1)
        )

    def forward(
        self,
        z: Tensor,
        context: Tensor | None = None,
        *,
        skips: Mapping[str, Tensor] | None = None,
        attention_map: Tensor | None = None,
    ) -> Tensor:
        """Return shape (B, C, H, W).

        Args:
            z: Shape (B, D).
            context: Shape (B, context_dim), or None where that is 0.
            skips: Features of some or all levels by name, each of its level's size.
            attention_map: Non-negative, shape (B, K, h, w) of any h and w.

        Raises:
            ValueError: if something has another shape, or is given to a decoder that was not built for it.
        """
        check_context(context, self.context_dim, len(z))
        self._check(z, skips or {}, attention_map)
        h = self.start(z, context if _context_dim(self.start) else None)
        for name, level in self.levels.items():
            if skips is not None and name in skips:
                h = h + self.fuse[name](skips[name])
            if attention_map is not None:
                h = self.attend[name](h, attention_map)
            h = level(h, context if _context_dim(level) else None)
        return self.output(h)

    def _check(self, z: Tensor, skips: Mapping[str, Tensor], attention_map: Tensor | None) -> None:
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"expected z of shape (B, {self.latent_dim}), got {tuple(z.shape)}")
        if skips and not self.fuse:
            raise ValueError("expected no skips, since the decoder was built without them")
        check_levels(list(skips), list(self.fuse))
        for name, skip in skips.items():
            weight = self.fuse[name].weight
            expected = (len(z), weight.shape[1], *self.level_sizes[name])  # type: ignore[union-attr, index]
            if tuple(skip.shape) != expected:
                raise ValueError(f"expected the skip '{name}' to have shape {expected}, got {tuple(skip.shape)}")
        if attention_map is not None and not self.attend:
            raise ValueError("expected no attention map, since the decoder was built with num_slots=0")


def check_levels(levels: Sequence[str], known: Sequence[str]) -> None:
    """Refuse levels that a network does not have.

    Raises:
        ValueError: naming the nearest.
    """
    for level in levels:
        if level not in known:
            raise ValueError(
                f"levels: the network has {', '.join(sorted(known))} and no '{level}'{did_you_mean(level, known)}"
            )


def _context_dim(stack: nn.Module) -> int:
    assert isinstance(stack, Stack)
    return stack.context_dim
