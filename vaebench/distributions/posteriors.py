"""Approximate posteriors: from an encoder's features to q(z|x)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from vaebench.distributions.diagonal_gaussian import DiagonalGaussian
from vaebench.messages import NamedArguments, check_range


class Posterior(Protocol):
    """A description of q(z|x), from which a model builds the module behind its encoder."""

    def build(self, num_features: int, latent_dim: int) -> nn.Module:
        """Return a module: features (B, F) -> distribution over (B, D)."""
        ...


@dataclass(frozen=True)
class DiagonalGaussianPosterior(NamedArguments):
    """A Gaussian with diagonal covariance, mean and log-variance linear in the features.

    The log-variance passes through `bound * tanh(v / bound)` here, once, so that sampling and the KL divergence see
    the same number and gradients never vanish at a hard edge.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114
    Args:
        log_var_bound: Largest magnitude of a log-variance, > 0. 10 admits sigma from 0.007 to 148.
    """

    log_var_bound: float = 10.0

    def __post_init__(self) -> None:
        check_range("log_var_bound", self.log_var_bound, above=0, below=math.inf)

    def build(self, num_features: int, latent_dim: int) -> nn.Module:
        """Return the module: features (B, F) -> DiagonalGaussian over (B, D)."""
        return _Head(nn.Linear(num_features, 2 * latent_dim), self.log_var_bound)

    def build_from_pair(self) -> nn.Module:
        """Return the module: mean and log-variance (B, 2 D), side by side -> DiagonalGaussian over (B, D)."""
        return _Head(nn.Identity(), self.log_var_bound)


class _Head(nn.Module):
    def __init__(self, linear: nn.Module, bound: float) -> None:
        super().__init__()
        self.linear = linear
        self.bound = bound

    def forward(self, features: Tensor) -> DiagonalGaussian:
        out = self.linear(features)
        out = out if out.dtype == torch.float64 else out.float()
        mean, raw = out.chunk(2, dim=-1)
        return DiagonalGaussian(mean, self.bound * torch.tanh(raw / self.bound))
