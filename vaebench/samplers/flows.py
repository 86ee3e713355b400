"""The base of the samplers with a normalising flow: the flow as a density of latents, and drawing from it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from vaebench.core import Batch, Draws, Loss, ProgressFunction
from vaebench.hardware import collective
from vaebench.messages import check_range
from vaebench.samplers.fitting import FitSettings, StandardizedModel, TrainedSampler

MANY_DIMENSIONS = 1000  # whose masks take seconds
MOST_DIMENSIONS = 5000  # whose masks zuko derives within a minute, in 1 GB


class FlowSettings(FitSettings, total=False):
    """What a sampler with a flow hands on to `FlowSampler`."""

    num_transforms: int
    hidden_features: Sequence[int]


class FlowSampler(TrainedSampler):
    r"""A normalising flow fitted to encoded data by maximum likelihood, on standardised latents.

    Args:
        num_transforms: Transforms in the flow, >= 1.
        hidden_features: Widths of the hidden layers of each transform's network.
        **settings: Those of `TrainedSampler`; the temperature scales the base's noise.
    """

    density: FlowDensity

    def __init__(
        self,
        *,
        num_transforms: int = 5,
        hidden_features: Sequence[int] = (100, 100),
        **settings: Unpack[FitSettings],
    ) -> None:
        super().__init__(**settings)
        check_range("num_transforms", num_transforms, at_least=1, whole=True)
        for width in hidden_features:
            check_range("hidden_features", width, at_least=1, whole=True)
        self.num_transforms = num_transforms
        self.hidden_features = tuple(hidden_features)

    def too_large(self, num_dims: int) -> str | None:
        """Say what the masks cost, or else the fit."""
        if num_dims <= MOST_DIMENSIONS:
            return super().too_large(num_dims)
        return (
            f"the masks of its networks come from products of D x D matrices, with D at most {MOST_DIMENSIONS}, got "
            f"{num_dims}; choose sampler=latent_diffusion"
        )

    def too_slow(self, num_dims: int) -> str | None:
        """Say what many dimensions cost before the first epoch."""
        if num_dims <= MANY_DIMENSIONS:
            return None
        return (
            f"derives the masks of its networks from products of {num_dims} x {num_dims} matrices before the fit "
            "begins: that may take a minute; sampler=latent_diffusion has none"
        )

    @abstractmethod
    def flow(self, num_features: int, num_context: int) -> nn.Module:
        """Return a flow: called with a context of shape (..., num_context) or None, it is a distribution over R^D."""

    def build(self, model: Any) -> FlowDensity:
        """Return the density."""
        num_features = math.prod(self.latent_shape)
        return FlowDensity(num_features, self.flow(num_features, self.num_labels))

    @torch.no_grad()
    def sample(self, num_samples: int, y: Tensor | None = None, *, progress: ProgressFunction | None = None) -> Draws:
        """Draw noise from the base, and send it through the flow."""
        y = self.labels(num_samples, y)
        self.check_fitted()
        noise = collective.standard_normal((num_samples, *self.density.shape), self.density.mean)
        u = self.density.flow(self.context(y)).transform.inv(self.temperature * noise)
        return Draws(self.density.restore(u).to(self.like).view(num_samples, *self.latent_shape), y)

    @torch.no_grad()
    def log_prob(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Log-density of latents of shape (N, *latent_shape) at T = 1, nats, shape (N,)."""
        self.check_fitted()
        return self.density.log_prob(z.flatten(1).float(), self.context(y))


class FlowDensity(StandardizedModel):
    """A flow as a density of latents.

    Args:
        num_features: D.
        flow: Called with a context or None, a distribution over R^D.
    """

    def __init__(self, num_features: int, flow: nn.Module) -> None:
        super().__init__(num_features)
        self.flow = flow

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of z (B, D), nats, shape (B,)."""
        log_prob: Tensor = self.flow(context).log_prob(self.standardize(z))
        return log_prob - self.scale.log().sum()

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return the negative log-likelihood; nats per latent."""
        return Loss.mean(-self.log_prob(batch.x, batch.context))
