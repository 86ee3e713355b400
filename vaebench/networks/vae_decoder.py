"""The U-Net decoder with a mixture of discretized logistics as its output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from vaebench.distributions.discretized_logistic_mixture import DiscretizedLogisticMixture
from vaebench.distributions.likelihoods import LogisticMixture
from vaebench.messages import NamedArguments, check_range
from vaebench.networks.unet import UNet
from vaebench.networks.vae_encoder import shape_of


class MixtureHead(NamedArguments, nn.Module):
    """The parameters of a mixture of discretized logistics by name, and what is done with them; pictures in [0, 1].

    Args:
        image_channels: C, 1 to 4.
        num_mixtures: M.
        num_levels: Levels of each channel.
    """

    def __init__(self, image_channels: int = 3, num_mixtures: int = 10, num_levels: int = 256) -> None:
        super().__init__()
        self.likelihood = LogisticMixture(num_levels, num_mixtures)
        self.num_params = self.likelihood.params_shape((image_channels, 1, 1))[0]

    def forward(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logit_probs, means, log_scales and coeffs for params of shape (..., num_params, H, W)."""
        return self.likelihood.split(params)

    def distribution(
        self, logit_probs: Tensor, means: Tensor, log_scales: Tensor, coeffs: Tensor
    ) -> DiscretizedLogisticMixture:
        """Return p(x|z), whose `log_prob` takes x of shape (..., C, H, W) in [0, 1]."""
        return DiscretizedLogisticMixture(logit_probs, means, log_scales, coeffs, self.likelihood.num_levels)

    def sample(
        self, logit_probs: Tensor, means: Tensor, log_scales: Tensor, coeffs: Tensor, temperature: float = 1.0
    ) -> Tensor:
        """Draw pictures, shape (..., C, H, W) in [0, 1]."""
        check_range("temperature", temperature, above=0)
        return self.distribution(logit_probs, means, log_scales, coeffs).sample(temperature=temperature)

    def mean(self, logit_probs: Tensor, means: Tensor, log_scales: Tensor, coeffs: Tensor) -> Tensor:
        """Return the mean picture, shape (..., C, H, W) in [0, 1]: what a reconstruction shows."""
        return self.distribution(logit_probs, means, log_scales, coeffs).mean


class VAEDecoder(NamedArguments, nn.Module):
    """p(x|z, A): a U-Net's way up, modulated by attention maps, to a mixture of discretized logistics.

    Where an interface known elsewhere differs: mixture logits have no channel axis, since one component is drawn for
    each pixel and shared by its channels; there are C (C - 1) / 2 coefficients, G from R, B from R and B from G, which
    is C only by chance; `num_mixtures` is honoured; skips enter at every level, the lowest included; one more step
    follows C2, up to the full size; bins are as wide as the levels lie apart; pictures are in [0, 1]; and what a skip
    of the same picture does to a likelihood is said by the skip modes of `model=unet_vae`.

    References:
        NVAE (Vahdat and Kautz, 2020), https://arxiv.org/abs/2007.03898; PixelCNN++ (Salimans et al., 2017),
        https://arxiv.org/abs/1701.05517
    Args:
        latent_dim: D, >= 1.
        image_channels: C, 1 to 4.
        base_channels: Channels of C2; every further level has twice as many.
        num_mixtures: M, >= 1.
        image_size: H = W, or (H, W).
        num_levels: How many levels from C2 on; None as in `VAEEncoder`.
        num_blocks: Residual blocks in each level.
        num_grey_levels: Levels of each channel of the pictures; 256 for 8 bits.
        num_slots: K, how many attention maps; 0 takes none; None learns it from the first call with maps, which must
            then come before an optimiser is made.
    """

    def __init__(
        self,
        latent_dim: int = 36,
        image_channels: int = 3,
        base_channels: int = 32,
        num_mixtures: int = 10,
        *,
        image_size: int | Sequence[int] = 64,
        num_levels: int | None = None,
        num_blocks: int = 1,
        num_grey_levels: int = 256,
        num_slots: int | None = None,
    ) -> None:
        super().__init__()
        check_range("latent_dim", latent_dim, at_least=1, whole=True)
        check_range("num_slots", num_slots, at_least=0, whole=True, or_null=True)
        self.mdl_head = MixtureHead(image_channels, num_mixtures, num_grey_levels)
        network = UNet(base_channels, num_levels, num_blocks)
        shape = shape_of(image_channels, image_size)
        self.trunk = network.decoder(
            latent_dim,
            (self.mdl_head.num_params, *shape[1:]),
            skips=network.levels(shape[1:]),
            num_slots=num_slots,
        )

    def forward(
        self, z: Tensor, skips: Mapping[str, Tensor] | None = None, attention_map: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logit_probs (B, M, H, W), means, log_scales (B, C, M, H, W), coeffs (B, C (C - 1) / 2, M, H, W).

        Args:
            z: Shape (B, D), or (B, T, D) for videos; then everything returned is (B, T, …).
            skips: Features by level, as `VAEEncoder.get_unet_skips` returns them.
            attention_map: Non-negative, shape (B, K, h, w) of any h and w, or (B, T, K, h, w).

        Raises:
            ValueError: if something has another shape.
        """
        leading = tuple(z.shape[:-1])
        if len(leading) > 1:
            skips = {name: skip.flatten(0, 1) for name, skip in skips.items()} if skips is not None else None
            attention_map = attention_map.flatten(0, 1) if attention_map is not None else None
        params = self.trunk(z.flatten(0, -2), skips=skips, attention_map=attention_map)
        return self.mdl_head(params.unflatten(0, leading))
