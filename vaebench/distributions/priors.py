"""Priors p(z)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from vaebench.core import at_least_float32
from vaebench.distributions.diagonal_gaussian import DiagonalGaussian, StandardNormal
from vaebench.messages import NamedArguments, check_range


class Prior(Protocol):
    """A description of p(z), or of p(z|y) where a model tells it about labels."""

    def build(self, latent_dim: int, *, context_dim: int = 0) -> PriorModule:
        """Return a module with event shape (D,); it takes a context of `context_dim` entries where it uses one."""
        ...


class PriorModule(nn.Module):
    """() -> p(z), or context (B, context_dim) -> p(z|y).

    Attributes:
        context_dim: Entries of the context that it needs; 0 for none.
    """

    context_dim: int = 0

    def forward(self, context: Tensor | None = None) -> DiagonalGaussian:
        """Return a distribution with event shape (D,), and batch shape (B,) where it takes a context."""
        raise NotImplementedError


@dataclass(frozen=True)
class StandardNormalPrior(NamedArguments):
    """N(0, I).

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114
    """

    def build(self, latent_dim: int, *, context_dim: int = 0) -> PriorModule:
        """Return the module: () -> DiagonalGaussian with event shape (D,), whatever the context."""
        return _StandardNormal(latent_dim)


class _StandardNormal(PriorModule):
    zeros: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)

    def forward(self, context: Tensor | None = None) -> DiagonalGaussian:
        return StandardNormal(self.zeros)


@dataclass(frozen=True)
class ConditionalGaussianPrior(NamedArguments):
    """A Gaussian for each label, mean and log-variance linear in the label's vector; N(0, I) at the start.

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee and Yan, 2015),
        https://papers.nips.cc/paper/2015/hash/8d55a249e6baa5c06772297520da2051-Abstract.html
    Args:
        log_var_bound: Largest magnitude of a log-variance, > 0; as in `DiagonalGaussianPosterior`.
    """

    log_var_bound: float = 10.0

    def __post_init__(self) -> None:
        check_range("log_var_bound", self.log_var_bound, above=0, below=math.inf)

    def build(self, latent_dim: int, *, context_dim: int = 0) -> PriorModule:
        """Return the module: context (B, context_dim) -> DiagonalGaussian over (B, D).

        Raises:
            ValueError: if there is no context.
        """
        if context_dim == 0:
            raise ValueError("prior: a prior for each label needs a model with labels; choose model=conditional_vae")
        return _ConditionalGaussian(latent_dim, context_dim, self.log_var_bound)


class _ConditionalGaussian(PriorModule):
    def __init__(self, latent_dim: int, context_dim: int, bound: float) -> None:
        super().__init__()
        self.context_dim, self.bound = context_dim, bound
        self.linear = nn.Linear(context_dim, 2 * latent_dim)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, context: Tensor | None = None) -> DiagonalGaussian:
        assert context is not None
        mean, raw = at_least_float32(self.linear(context)).chunk(2, dim=-1)
        return DiagonalGaussian(mean, self.bound * torch.tanh(raw / self.bound))
