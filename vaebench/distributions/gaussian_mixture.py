"""The mixture of Gaussians with diagonal covariances and equal weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaebench.distributions.diagonal_gaussian import LOG_2PI
from vaebench.hardware import collective


class DiagonalGaussianMixture(Distribution):
    r"""The density (1 / C) sum_c N(z; mean_c, diag(exp(log_var_c))), an event being a vector of D dimensions.

    Args:
        mean: Shape (C, D).
        log_var: Logarithm of the variances, shape (C, D).
    """

    arg_constraints = {}  # noqa: RUF012 - torch's own class attribute

    def __init__(self, mean: Tensor, log_var: Tensor, batch_shape: torch.Size | Sequence[int] = ()) -> None:
        self.loc, self.log_var = mean, log_var
        super().__init__(torch.Size(batch_shape), mean.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Shape (*batch_shape, D)."""
        return self.loc.mean(0).expand(*self.batch_shape, -1)

    @property
    def variance(self) -> Tensor:
        """Shape (*batch_shape, D)."""
        second = (self.log_var.exp() + self.loc.square()).mean(0)
        return (second - self.loc.mean(0).square()).expand(*self.batch_shape, -1)

    def expand(
        self, batch_shape: torch.Size | Sequence[int], _instance: Distribution | None = None
    ) -> DiagonalGaussianMixture:
        """Return the same distribution for each entry of `batch_shape`."""
        return DiagonalGaussianMixture(self.loc, self.log_var, batch_shape)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Draw a component and then from it; shape (*sample_shape, *batch_shape, D)."""
        shape = (*sample_shape, *self.batch_shape)
        dim = len(sample_shape) if self.batch_shape else 0
        u = collective.uniform(shape, like=self.loc, dim=dim) if shape else torch.rand_like(self.loc[0, 0])
        c = (u * len(self.loc)).long().clamp_max(len(self.loc) - 1)
        mean, log_var = self.loc[c], self.log_var[c]
        eps = collective.standard_normal(mean.shape, like=mean, dim=dim) if shape else torch.randn_like(mean)
        return mean + (0.5 * log_var).exp() * eps

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of `value` (..., D), nats, shape (...).

        The squares are expanded, so that no tensor of shape (..., C, D) exists, in float64, so that they cancel well.
        """
        z, mean, log_var = (t.to(torch.float64) for t in (value, self.loc, self.log_var))
        precision = (-log_var).exp()
        squared = z.square() @ precision.T - 2 * z @ (mean * precision).T + (mean.square() * precision).sum(-1)
        log_each = -0.5 * (squared + (log_var + LOG_2PI).sum(-1))
        return (log_each.logsumexp(-1) - math.log(len(mean))).to(value.dtype)
