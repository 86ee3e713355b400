"""All probability on one point: what a deterministic encoder returns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, register_kl

from vaebench.messages import NamedArguments

NO_DENSITY = "a deterministic encoder has no density q(z|x); choose model/posterior=diagonal_gaussian"


class PointMass(Distribution):
    """The vector `mean` with probability one, an event being the last dimension.

    Unpacks and indexes as `mean, log_var` with a log-variance of minus infinity, so that mean + exp(log_var / 2) * eps
    is the mean.
    It has no density: `log_prob` and a KL divergence to a density do not exist, and models that use it lack the
    capability "rate".

    Args:
        mean: Shape (..., D).
    """

    has_rsample = True
    arg_constraints = {}  # noqa: RUF012 - torch's own class attribute

    def __init__(self, mean: Tensor) -> None:
        self.loc = mean
        super().__init__(mean.shape[:-1], mean.shape[-1:], validate_args=False)

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.loc, torch.full_like(self.loc, -math.inf)))

    def __getitem__(self, index: int) -> Tensor:
        return tuple(self)[index]

    @property
    def mean(self) -> Tensor:
        """Shape (..., D)."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Zero, shape (..., D)."""
        return torch.zeros_like(self.loc)

    def expand(self, batch_shape: torch.Size | Sequence[int], _instance: Distribution | None = None) -> PointMass:
        """Return the same point for each entry of `batch_shape`."""
        return PointMass(self.loc.expand(*batch_shape, *self.event_shape))

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Return the mean, with gradients; shape (*sample_shape, ..., D)."""
        return self.loc.expand(*sample_shape, *self.loc.shape)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Return the mean, without gradients; shape (*sample_shape, ..., D)."""
        return self.rsample(sample_shape).detach()

    def log_prob(self, value: Tensor) -> Tensor:
        """Refuse.

        Raises:
            ValueError: always.
        """
        raise ValueError(NO_DENSITY)


@register_kl(PointMass, Distribution)
def _kl(q: PointMass, p: Distribution) -> Tensor:
    raise ValueError(NO_DENSITY)


@dataclass(frozen=True)
class DeterministicPosterior(NamedArguments):
    """A point, linear in the features: z = f(x).

    References:
        Adversarial Autoencoders (Makhzani et al., 2016), https://arxiv.org/abs/1511.05644 (section 2); From
        Variational to Deterministic Autoencoders (Ghosh et al., 2020), https://arxiv.org/abs/1903.12436
    """

    def build(self, num_features: int, latent_dim: int) -> nn.Module:
        """Return the module: features (B, F) -> PointMass over (B, D)."""
        return _Head(num_features, latent_dim)


class _Head(nn.Module):
    def __init__(self, num_features: int, latent_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, latent_dim)

    def forward(self, features: Tensor) -> PointMass:
        mean = self.linear(features)
        return PointMass(mean if mean.dtype == torch.float64 else mean.float())
