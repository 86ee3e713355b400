"""The base of the likelihoods with a network of their own, which receives the decoder's output as its context."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaebench.core import at_least_float32
from vaebench.distributions.likelihoods import Likelihood
from vaebench.hardware import collective
from vaebench.messages import check_range


class ContextLikelihood(Likelihood):
    """p(x|z) by a network that `setup` creates, given c(z): pictures of the same size, or vectors.

    Args:
        num_levels: Levels of the data, >= 2, or None for real data.
        context_dim: Channels, or entries, of c(z), >= 1.
    """

    shape: tuple[int, ...]

    def __init__(self, num_levels: int | Literal["auto"] | None, context_dim: int) -> None:
        super().__init__()
        if num_levels == "auto":
            raise ValueError("num_levels must be the number of levels of the data, or null for real data; got auto")
        check_range("num_levels", num_levels, at_least=2, whole=True, or_null=True)
        check_range("context_dim", context_dim, at_least=1, whole=True)
        self.num_levels, self.context_dim = num_levels, context_dim
        self.is_discrete = num_levels is not None

    def params_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The context: (context_dim, H, W) for pictures, (context_dim,) for vectors."""
        return (self.context_dim, *shape[1:])

    def forward(self, params: Tensor, event_ndim: int) -> Independent:
        """Return p(x|z) with an event of `event_ndim` dimensions, computed in float32 or better."""
        return Independent(self.given(at_least_float32(params)), 0, validate_args=False)

    @abstractmethod
    def given(self, context: Tensor) -> ContextDistribution:
        """Return p(x|z) for contexts of shape (..., context_dim, …)."""


class ContextDistribution(Distribution):
    """p(x|z) for contexts of shape (..., context_dim, …), the batch dimensions first.

    Args:
        shape: Shape of one example.
        context: c(z).
    """

    arg_constraints = {}  # noqa: RUF012 - torch's own class attribute

    def __init__(self, shape: tuple[int, ...], context: Tensor) -> None:
        self.context = context
        super().__init__(context.shape[: context.ndim - len(shape)], torch.Size(shape), validate_args=False)

    def rows(self, value: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
        """Return examples (N, *event_shape) and contexts (N, context_dim, …) of a value, and its batch shape."""
        batch_shape = torch.broadcast_shapes(value.shape[: value.ndim - len(self.event_shape)], self.batch_shape)
        own = self.context.shape[len(self.batch_shape) :]
        x = value.to(self.context).expand(*batch_shape, *self.event_shape).reshape(-1, *self.event_shape)
        return x, self.context.expand(*batch_shape, *own).reshape(-1, *own), batch_shape

    def uniform(self, batch_shape: torch.Size, shape: tuple[int, ...] = ()) -> Tensor:
        """Draw from U[0, 1), shape (N, *shape): what N processes draw together is what one would."""
        drawn = collective.uniform((*batch_shape, *shape), self.context, dim=max(0, len(batch_shape) - 1))
        return drawn.reshape(math.prod(batch_shape), *shape)

    def normal(self, batch_shape: torch.Size) -> Tensor:
        """Draw from N(0, 1), shape (N, *event_shape); likewise."""
        shape = (*batch_shape, *self.event_shape)
        drawn = collective.standard_normal(shape, self.context, dim=max(0, len(batch_shape) - 1))
        return drawn.reshape(math.prod(batch_shape), *self.event_shape)
