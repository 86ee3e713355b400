r"""A VAE with a U-Net for encoder and decoder, over pictures or videos, and what its skip connections may carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from vaebench.core import Batch, Loss, Split
from vaebench.distributions.frame_by_frame import FrameByFrame
from vaebench.distributions.likelihoods import Likelihood, LikelihoodName, as_likelihood
from vaebench.distributions.posteriors import DiagonalGaussianPosterior
from vaebench.distributions.priors import Prior, StandardNormalPrior
from vaebench.messages import check_range, did_you_mean
from vaebench.models.base import ELBOTerms, LatentVariableModel
from vaebench.networks.contexts import Contexts, ContextSource
from vaebench.networks.unet import UNet
from vaebench.networks.unet_frames import UNetFramesDecoder, UNetFramesEncoder
from vaebench.objectives.divergences import rate as rate_of
from vaebench.objectives.divergences import rate_per_dimension

SkipMode = Literal["none", "stochastic", "context", "deterministic"]
_DETERMINISTIC = (
    "its skip connections carry features of x itself to the decoder, so that {}; choose model.skip_mode=none or "
    "stochastic"
)
_WITHOUT = {
    "likelihood": "p(x|z) does not exist",
    "prior": "z alone gives no picture",
    "rate": "distortion plus rate bounds nothing",
}


class UNetVAE(LatentVariableModel):
    r"""VAE with the U-Net of an NVAE-like encoder and decoder (Ronneberger et al., 2015; Vahdat and Kautz, 2020).

    .. math:: L = -E_{q(z|x,c)}[\log p(x|z,c)] + KL(q(z|x,c) \| p(z))

    Skip connections from encoder(x) into the decoder would make p(x|z) a p(x|z, f(x)): z may be ignored, the loss is no
    bound, and draws from the prior have no features to go with. So `skip_mode` says what they carry:

    none            nothing: an ordinary VAE;
    stochastic      a map of latents for each level, with its own rate, and z above them: groups of latents, each with
                    a standard normal prior, whose rates are logged as rate_group_0 for z, then the lowest level, …;
    context         features of other data: of the frame before, for videos, whose p(x|z) then is a product of
                    p(x_t | z_t, x_{t-1}); or of pictures that the data set gives as contexts;
    deterministic   features of x. No likelihood, no bound and no samples then, which the model says; it reconstructs.

    A context c, from labels or from an array of the data set, enters every block of both networks by FiLM. For videos
    it may change over time. A latent is one vector: z of all frames, then the maps from the lowest level on.

    References:
        U-Net (Ronneberger et al., 2015), https://arxiv.org/abs/1505.04597; NVAE (Vahdat and Kautz, 2020),
        https://arxiv.org/abs/2007.03898
    Deviations:
        The priors of the groups do not depend on each other; those of model=nvae do.
    Args: likelihood and prior of `LatentVariableModel`, and
        skip_mode: none, stochastic, context or deterministic.
        context: none, labels, or data: the array that the data set gives as context (dataset.context_key).
        num_classes: Number of classes, for context=labels; the data set gives it at the command line.
        context_dim: Entries of a context of the data; for labels, length of the vector that stands for one. With
            skip_mode=context and pictures for contexts, their channels.
        skip_channels: Channels of each level's map of latents, with skip_mode=stochastic.
        latent_dim: Dimensions of z, for each frame.
        network: Description of the U-Net.
    """

    needs_labels: ClassVar[bool] = False  # unless context=labels
    encoder: UNetFramesEncoder
    decoder: UNetFramesDecoder

    def __init__(
        self,
        shape: Sequence[int],
        *,
        skip_mode: SkipMode = "none",
        context: ContextSource = "none",
        num_classes: int | None = None,
        context_dim: int = 16,
        skip_channels: int = 4,
        latent_dim: int = 36,
        network: UNet = UNet(),  # noqa: B008 - a frozen description
        likelihood: Likelihood | LikelihoodName = "gaussian",
        prior: Prior = StandardNormalPrior(),  # noqa: B008
    ) -> None:
        for name, given, known in (("skip_mode", skip_mode, SkipMode), ("context", context, ContextSource)):
            if given not in get_args(known):
                raise ValueError(f"{name}: unknown name '{given}'{did_you_mean(str(given), get_args(known))}")
        for name, number in (
            ("latent_dim", latent_dim),
            ("context_dim", context_dim),
            ("skip_channels", skip_channels),
        ):
            check_range(name, number, at_least=1, whole=True)
        if not isinstance(network, UNet):
            raise ValueError(f"network: UNetVAE needs network=unet; got {type(network).__name__}")
        if len(shape) not in (3, 4):
            raise ValueError(
                f"network: UNet takes images (C, H, W) or videos (T, C, H, W), got examples of shape {tuple(shape)}; "
                "use model=vae"
            )
        is_video = len(shape) == 4
        takes_pictures = skip_mode == "context" and not is_video
        if takes_pictures and context != "data":
            raise ValueError(
                "skip_mode: with 'context' the skips are those of the frame before, or of pictures that come as "
                "contexts; the data are not videos, so set model.context=data and dataset.context_key"
            )
        likelihood = as_likelihood(likelihood)
        frame = tuple(shape[-3:])
        picture = (context_dim, *frame[1:]) if takes_pictures else None
        enters = 0 if context == "none" or takes_pictures else context_dim
        maps = skip_channels if skip_mode == "stochastic" else 0
        encoder = UNetFramesEncoder(network, tuple(shape), latent_dim, enters, maps)
        skips = encoder.trunk.level_channels if skip_mode in ("context", "deterministic") else {}
        decoder = UNetFramesDecoder(
            network, encoder.num_frames, encoder.group_shapes, likelihood.params_shape(frame), enters, skips
        )
        super().__init__(
            shape,
            likelihood=likelihood,
            latent_dim=encoder.num_features // 2,
            network=_Built(encoder, decoder),  # type: ignore[arg-type]
            posterior=_FromPair(),
            prior=prior,
        )
        self.num_classes = num_classes if context == "labels" else None
        self.skip_mode, self.is_video, self.takes_pictures = skip_mode, is_video, takes_pictures
        self.contexts = Contexts(context, num_classes, context_dim, encoder.num_frames if is_video else None, picture)
        if skip_mode == "context":
            self.context_encoder = network.encoder(picture or frame)
            self.context_encoder.top = nn.Sequential()  # only its levels are used
        if skip_mode == "stochastic":
            self.capabilities = self.capabilities | {"groups"}  # type: ignore[misc]
        if skip_mode == "deterministic":
            self.capabilities = frozenset({"posterior"})  # type: ignore[misc]
            self.why_not = {name: _DETERMINISTIC.format(why) for name, why in _WITHOUT.items()}  # type: ignore[misc]

    # The three distributions

    def posterior(self, x: Tensor, y: Tensor | None = None) -> Any:
        """Return q(z|x, c), over (B, D); y are labels or contexts of the B examples."""
        return self.posterior_head(self.encoder(x, self._context(y, len(x))))

    def likelihood(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        """Return p(x|z, c) for z of shape (..., B, D), over (..., B, *shape).

        Raises:
            ValueError: if the skips carry features of x, or a context is missing or of another shape.
        """
        self.require("likelihood")
        leading = z.shape[:-1]
        context = self._context(y, z.shape[-2] if z.ndim > 1 else 1)
        if context is not None:
            context = context.expand(*leading, *context.shape[1:]).flatten(0, len(leading) - 1)
        flat = z.reshape(-1, z.shape[-1])

        def given(before: Tensor | None, frames: slice) -> Distribution:
            skips = None if before is None else self._skips_of(before, leading)
            at_that_time = context[:, frames] if context is not None and context.ndim == 3 else context
            params = self.decoder(flat, at_that_time, skips, frames)
            return self._likelihood_of(params.reshape(*leading, *params.shape[1:]))

        if self.skip_mode == "context" and self.is_video:
            return FrameByFrame(given, tuple(leading), self.shape, z)
        pictures = self.contexts(y, z.shape[-2] if z.ndim > 1 else 1) if self.takes_pictures else None
        p = given(None if pictures is None else pictures[:, None], slice(None))
        return Independent(p, 1, validate_args=False) if self.is_video else p

    def _likelihood_of(self, params: Tensor) -> Distribution:
        """Over (C, H, W), with batch shape (..., T) for videos and (...) for pictures; params (..., T, P, H, W)."""
        return self.likelihood_head(params if self.is_video else params.squeeze(-4), 3)

    def _skips_of(self, frames: Tensor, leading: Sequence[int]) -> dict[str, Tensor]:
        """Levels of other frames (..., B, T', C, H, W), repeated for further leading dimensions of the latents."""
        levels = self.context_encoder.features(frames.reshape(-1, *frames.shape[-3:]))
        before = frames.shape[:-3]

        def repeated(level: Tensor) -> Tensor:
            level = level.unflatten(0, before)
            return level.expand(*leading, before[-1], *level.shape[-3:]).flatten(0, -4)

        return {name: repeated(level) for name, level in levels.items()}

    # Contexts

    def _context(self, y: Tensor | None, num: int) -> Tensor | None:
        """What enters by FiLM: (B, E), or (B, T, E) for contexts over time; None without."""
        return None if self.takes_pictures else self.contexts(y, num)

    def before_training(self, train: Split) -> None:
        """Keep how often each label occurs, or some contexts, for samples that are not told one."""
        self.contexts.remember(train)

    def draw_labels(self, num_samples: int) -> Tensor | None:
        """Draw labels as often as training saw them, or contexts of training; None for a model without contexts."""
        return self.contexts.draw(num_samples)

    def _any_label(self) -> Tensor | None:
        return self.contexts.any_one()

    # Training

    @property
    def group_sizes(self) -> list[int]:
        """How many latents each group has: z, then the maps from the lowest level on."""
        return list(self.encoder.group_sizes.values())

    def group_terms(self, x: Tensor, y: Tensor | None = None) -> tuple[ELBOTerms, Tensor]:
        """Return what `elbo_terms` returns, and the rate of each group, nats, (B, G)."""
        terms = self.elbo_terms(x, y)
        rates_BD = rate_per_dimension(terms.q, terms.p)
        return terms, torch.stack([part.sum(-1) for part in rates_BD.split(self.group_sizes, -1)], -1)

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return D + R; nats per example. With deterministic skips it is not a bound."""
        x, y = batch.x, batch.y
        if self.skip_mode == "deterministic":
            pair, levels = self.encoder.with_levels(x, self._context(y, len(x)))
            q, p = self.posterior_head(pair), self.prior(y)
            z = q.rsample()
            distortion, rate = -self._with_skips_of_x(z, levels, y).log_prob(x), rate_of(q, p, z)[0]
            return Loss.mean(distortion + rate, distortion=distortion, rate=rate)
        terms, rates = self.group_terms(x, y)
        groups = rates.unbind(-1) if "groups" in self.capabilities else ()
        of_groups = {f"rate_group_{number}": rate for number, rate in enumerate(groups)}
        return Loss.mean(terms.distortion + terms.rate, distortion=terms.distortion, rate=terms.rate, **of_groups)

    def validation_loss(self, batch: Batch, step: int) -> Loss:
        """Return the same, with the rate of each group."""
        return self.loss(batch, step)

    @property
    def reconstructs(self) -> bool:
        """Always: with deterministic skips the example's own features are there."""
        return True

    @torch.no_grad()
    def reconstruct(self, x: Tensor, deterministic: bool = False, y: Tensor | int | None = None) -> Tensor:
        """Encode and decode x of shape (B, *shape), through the mean of q where `deterministic`."""
        if self.skip_mode != "deterministic":
            return super().reconstruct(x, deterministic, y)
        x = self._batched(x)
        labels = self._labels(y, len(x))
        pair, levels = self.encoder.with_levels(x, self._context(labels, len(x)))
        q = self.posterior_head(pair)
        return self._with_skips_of_x(q.mean if deterministic else q.sample(), levels, labels).mean

    def _with_skips_of_x(self, z: Tensor, levels: dict[str, Tensor], y: Tensor | None) -> Distribution:
        p = self._likelihood_of(self.decoder(z, self._context(y, len(z)), levels))
        return Independent(p, 1, validate_args=False) if self.is_video else p


class _Built:
    """Networks that are built already, as the description that every model takes."""

    def __init__(self, encoder: UNetFramesEncoder, decoder: UNetFramesDecoder) -> None:
        self._encoder, self._decoder = encoder, decoder

    def encoder(self, shape: tuple[int, ...], **_: Any) -> UNetFramesEncoder:
        return self._encoder

    def decoder(self, latent_dim: int, shape: tuple[int, ...], **_: Any) -> UNetFramesDecoder:
        return self._decoder


class _FromPair:
    """Bounds the log-variance; means and log-variances come from the encoder."""

    def build(self, num_features: int, latent_dim: int) -> nn.Module:
        return DiagonalGaussianPosterior().build_from_pair()
