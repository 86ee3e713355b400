"""The U-Net encoder with a Gaussian posterior, for pictures and videos."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vaebench.distributions.diagonal_gaussian import DiagonalGaussian
from vaebench.distributions.posteriors import DiagonalGaussianPosterior
from vaebench.messages import NamedArguments, check_range
from vaebench.networks.unet import UNet, check_levels

LEVELS = ("C2", "C3", "C4", "C5", "C6")


class VAEEncoder(NamedArguments, nn.Module):
    """q(z|x, c): a U-Net's way down, and a Gaussian from its last level.

    Where an interface known elsewhere differs: a call returns one distribution, which unpacks as mean and log-variance;
    a video gets one latent for each frame, (B, T, D), and not one for all; skips are named by level, since names such
    as "32x32" collide; nothing is cached from call to call, since a cache outlives its input: `encode_with_skips`
    returns both of one pass; the log-variance is bounded once, for drawing and for the rate; and the depth follows the
    picture's size, so that 28x28 works.

    References:
        NVAE: A Deep Hierarchical Variational Autoencoder (Vahdat and Kautz, 2020), https://arxiv.org/abs/2007.03898
    Args:
        latent_dim: D, >= 1.
        context_dim: Entries of the context, which enters every block by FiLM; None or 0 for none.
        image_channels: C.
        base_channels: Channels of C2; every further level has twice as many.
        image_size: H = W, or (H, W).
        num_levels: How many levels from C2 on; None takes as many as leave two pixels on each side, up to C6.
        num_blocks: Residual blocks in each level.
    """

    def __init__(
        self,
        latent_dim: int = 36,
        context_dim: int | None = None,
        image_channels: int = 3,
        base_channels: int = 32,
        *,
        image_size: int | Sequence[int] = 64,
        num_levels: int | None = None,
        num_blocks: int = 1,
    ) -> None:
        super().__init__()
        check_range("latent_dim", latent_dim, at_least=1, whole=True)
        network = UNet(base_channels, num_levels, num_blocks)
        self.trunk = network.encoder(shape_of(image_channels, image_size), context_dim or 0, "film")
        self.head = DiagonalGaussianPosterior().build(self.trunk.num_features, latent_dim)
        self.latent_dim = latent_dim

    def forward(self, observations: Tensor, context: Tensor | None = None) -> DiagonalGaussian:
        """Return q(z|x, c) over (B, D) for pictures (B, C, H, W), over (B, T, D) for videos (B, T, C, H, W).

        Args:
            observations: Pictures or videos.
            context: Shape (B, context_dim), or for videos also (B, T, context_dim).

        Raises:
            ValueError: if pictures or context have another shape.
        """
        return self.encode_with_skips(observations, context, ())[0]

    def encode_with_skips(
        self, observations: Tensor, context: Tensor | None = None, levels: Sequence[str] | None = None
    ) -> tuple[DiagonalGaussian, dict[str, Tensor]]:
        """Return the posterior and the levels' features, of one forward pass; arguments as in the two methods.

        All levels by default.
        """
        wanted = list(self.trunk.level_channels) if levels is None else levels
        check_levels(wanted, list(self.trunk.level_channels))
        frames, leading = fold(observations)
        features, found = self.trunk.with_features(frames, fold_context(context, leading))
        q = self.head(features)
        return _unfold_posterior(q, leading), {name: found[name].unflatten(0, leading) for name in wanted}

    def get_unet_skips(
        self, observations: Tensor, levels: Sequence[str] = LEVELS, context: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the features of levels by name, C2 (B, base, ceil(H / 2), ceil(W / 2)) and so on; of videos (B, T, …).

        Raises:
            ValueError: if the network has no such level.
        """
        check_levels(levels, list(self.trunk.level_channels))
        frames, leading = fold(observations)
        found = self.trunk.features(frames, fold_context(context, leading))
        return {name: found[name].unflatten(0, leading) for name in levels}

    def reparameterize(self, z_mean: Tensor, z_logvar: Tensor) -> Tensor:
        """Draw mean + exp(log_var / 2) * eps, of the same shape."""
        return DiagonalGaussian(z_mean, z_logvar).rsample()


def shape_of(image_channels: int, image_size: int | Sequence[int]) -> tuple[int, int, int]:
    """Return (C, H, W).

    Raises:
        ValueError: if a number is below 1, or the size is not one or two of them.
    """
    check_range("image_channels", image_channels, at_least=1, whole=True)
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2:
        raise ValueError(f"image_size must be a side or (height, width); got {size}")
    for side in size:
        check_range("image_size", side, at_least=1, whole=True)
    return image_channels, size[0], size[1]


def fold(observations: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Return frames (B T, C, H, W) and (B, T) of videos, or pictures as they are and (B,).

    Raises:
        ValueError: if it is neither.
    """
    if observations.ndim not in (4, 5):
        raise ValueError(
            f"expected pictures (B, C, H, W) or videos (B, T, C, H, W), got shape {tuple(observations.shape)}"
        )
    leading = tuple(observations.shape[:-3])
    return observations.flatten(0, -4) if observations.ndim == 5 else observations, leading


def fold_context(context: Tensor | None, leading: tuple[int, ...]) -> Tensor | None:
    """Return one context for each frame, (B T, E), where (B, E) stands for all frames of a video."""
    if context is None or len(leading) == 1:
        return context
    if context.ndim == 2 and len(context) == leading[0]:
        context = context[:, None].expand(*leading, -1)
    if tuple(context.shape[:2]) != leading:
        raise ValueError(
            f"expected a context of shape ({leading[0]}, E) or ({leading[0]}, {leading[1]}, E) for these videos, got "
            f"{tuple(context.shape)}"
        )
    return context.flatten(0, 1)


def _unfold_posterior(q: DiagonalGaussian, leading: tuple[int, ...]) -> DiagonalGaussian:
    return q if len(leading) == 1 else DiagonalGaussian(*(t.unflatten(0, leading) for t in q))
