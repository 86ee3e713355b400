"""U-Nets over pictures, or over every frame of a video, with groups of latents: the vector z, and maps for skips."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vaebench.networks.network import Encoder
from vaebench.networks.unet import UNet
from vaebench.networks.vae_encoder import fold, fold_context


class UNetFramesEncoder(Encoder):
    """x (B, *shape) -> means, then raw log-variances, of all groups of latents, (B, 2 D).

    The groups are z of all frames, then, where there are any, the maps of each level from the lowest on.

    Args:
        network: Description of the U-Net.
        shape: (C, H, W), or (T, C, H, W) for videos.
        latent_dim: Of z, for each frame.
        context_dim: Entries of the context.
        skip_channels: Channels of each level's map of latents; 0 for none.

    Attributes:
        group_shapes: Of one frame's latents in each group, by name.
    """

    def __init__(
        self, network: UNet, shape: tuple[int, ...], latent_dim: int, context_dim: int, skip_channels: int
    ) -> None:
        super().__init__()
        self.num_frames = shape[0] if len(shape) == 4 else 1
        self.trunk = network.encoder(shape[-3:], context_dim, "film")
        self.z = nn.Linear(self.trunk.num_features, 2 * latent_dim)
        names = list(self.trunk.level_channels)[::-1] if skip_channels else []
        self.maps = nn.ModuleDict({n: nn.Conv2d(self.trunk.level_channels[n], 2 * skip_channels, 1) for n in names})
        self.group_shapes: dict[str, tuple[int, ...]] = {
            "z": (latent_dim,),
            **{name: (skip_channels, *self.trunk.level_sizes[name]) for name in names},
        }
        self.context_dim = context_dim
        self.num_features = 2 * sum(self.group_sizes.values())

    @property
    def group_sizes(self) -> dict[str, int]:
        """Latents in each group, over all frames."""
        return {name: self.num_frames * math.prod(shape) for name, shape in self.group_shapes.items()}

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Means and raw log-variances, shape (B, 2 D); context (B, E), or (B, T, E) for videos."""
        return self.with_levels(x, context)[0]

    def features(self, x: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Every level by its name, of all frames, (B T, C', h, w)."""
        frames, leading = fold(x)
        return self.trunk.features(frames, fold_context(context, leading))

    def with_levels(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The same as `forward`, and every level by its name, of one pass."""
        frames, leading = fold(x)
        features, levels = self.trunk.with_features(frames, fold_context(context, leading))
        pairs = [self.z(features), *(head(levels[name]) for name, head in self.maps.items())]
        halves = [pair.unflatten(0, (len(x), -1)).chunk(2, dim=2) for pair in pairs]
        means, raw = zip(*halves, strict=True)
        return torch.cat([half.flatten(1) for half in (*means, *raw)], 1), levels


class UNetFramesDecoder(nn.Module):
    """Latents (B, D), in the order of `UNetFramesEncoder`, -> the likelihood's parameters of all frames.

    Args:
        network: Description of the U-Net.
        num_frames: T; 1 for pictures.
        group_shapes: Of one frame's latents in each group, by name, z first.
        shape: (P, H, W) of one frame's parameters.
        context_dim: Entries of the context.
        skips: Channels of what each level is given from outside; the maps of latents are given besides.
    """

    def __init__(
        self,
        network: UNet,
        num_frames: int,
        group_shapes: Mapping[str, tuple[int, ...]],
        shape: tuple[int, ...],
        context_dim: int,
        skips: Mapping[str, int],
    ) -> None:
        super().__init__()
        self.num_frames, self.group_shapes = num_frames, dict(group_shapes)
        maps = {name: channels[0] for name, channels in self.group_shapes.items() if name != "z"}
        (latent_dim,) = self.group_shapes["z"]
        self.trunk = network.decoder(latent_dim, shape, context_dim, "film", skips=maps or skips)

    def forward(
        self,
        z: Tensor,
        context: Tensor | None = None,
        skips: Mapping[str, Tensor] | None = None,
        frames: slice = slice(None),
    ) -> Tensor:
        """Return shape (B, T', P, H, W) for the chosen frames.

        Args:
            z: Shape (B, D).
            context: Shape (B, E) or (B, T', E).
            skips: What the levels are given from outside, of frames, (B T', C, h, w).
            frames: Which frames.
        """
        sizes = [self.num_frames * math.prod(shape) for shape in self.group_shapes.values()]
        groups = {
            name: part.unflatten(1, (self.num_frames, *shape))[:, frames].flatten(0, 1)
            for (name, shape), part in zip(self.group_shapes.items(), z.split(sizes, 1), strict=True)
        }
        latent = groups.pop("z")
        leading = (len(z), len(latent) // len(z))
        params = self.trunk(latent, fold_context(context, leading), skips=groups or skips)
        return params.unflatten(0, leading)
