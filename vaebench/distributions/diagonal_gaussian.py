"""The Gaussian with a diagonal covariance, over vectors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, register_kl

from vaebench.hardware import collective

LOG_2PI = math.log(2 * math.pi)


class DiagonalGaussian(Distribution):
    r"""N(mean, diag(exp(log_var))), an event being the last dimension.

    Unpacks and indexes as `mean, log_var`. `log_prob`, `entropy` and the KL divergence are sums over the D dimensions,
    in nats.

    Args:
        mean: Shape (..., D).
        log_var: Logarithm of the variances, shape (..., D).
    """

    has_rsample = True
    arg_constraints = {}  # noqa: RUF012 - torch's own class attribute

    def __init__(self, mean: Tensor, log_var: Tensor) -> None:
        self.loc = mean
        self.log_var = log_var
        super().__init__(mean.shape[:-1], mean.shape[-1:], validate_args=False)

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.loc, self.log_var))

    def __getitem__(self, index: int) -> Tensor:
        return (self.loc, self.log_var)[index]

    @property
    def mean(self) -> Tensor:
        """Shape (..., D)."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Shape (..., D)."""
        return self.log_var.exp()

    @property
    def stddev(self) -> Tensor:
        """Shape (..., D)."""
        return (0.5 * self.log_var).exp()

    def expand(
        self, batch_shape: torch.Size | Sequence[int], _instance: Distribution | None = None
    ) -> DiagonalGaussian:
        """Return the same distribution for each entry of `batch_shape`."""
        shape = (*batch_shape, *self.event_shape)
        return DiagonalGaussian(self.loc.expand(shape), self.log_var.expand(shape))

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Draw mean + sigma * eps with gradients; shape (*sample_shape, ..., D)."""
        shape = (*sample_shape, *self.loc.shape)
        eps = collective.standard_normal(shape, like=self.loc, dim=len(sample_shape))
        return self.loc + self.stddev * eps

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Draw without gradients; shape (*sample_shape, ..., D)."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of `value` (..., D), nats, summed over D."""
        squared = (value - self.loc).square() * (-self.log_var).exp()
        return -0.5 * (squared + self.log_var + LOG_2PI).sum(-1)

    def score(self, value: Tensor) -> Tensor:
        """Gradient of `log_prob` in `value`, shape (..., D)."""
        return (self.loc - value) * (-self.log_var).exp()

    def entropy(self) -> Tensor:
        """Nats, summed over D."""
        return 0.5 * (self.log_var + 1 + LOG_2PI).sum(-1)


class StandardNormal(DiagonalGaussian):
    """N(0, I): the same, with fewer operations.

    Args:
        zeros: Shape (D,).
    """

    def __init__(self, zeros: Tensor) -> None:
        super().__init__(zeros, zeros)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of `value` (..., D), nats, summed over D."""
        return -0.5 * (value.square().sum(-1) + self.loc.shape[-1] * LOG_2PI)

    def score(self, value: Tensor) -> Tensor:
        """Gradient of `log_prob` in `value`, shape (..., D)."""
        return -value


@register_kl(DiagonalGaussian, DiagonalGaussian)
def _kl(q: DiagonalGaussian, p: DiagonalGaussian) -> Tensor:
    ratio = (q.log_var - p.log_var).exp()
    squared = (q.loc - p.loc).square() * (-p.log_var).exp()
    return 0.5 * (ratio + squared - 1 - q.log_var + p.log_var).sum(-1)


@register_kl(DiagonalGaussian, StandardNormal)
def _kl_to_standard_normal(q: DiagonalGaussian, p: StandardNormal) -> Tensor:
    return 0.5 * ((q.loc.square() + q.log_var.exp() - q.log_var).sum(-1) - q.loc.shape[-1])
