"""Priors p(z)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from vaebench.distributions.diagonal_gaussian import DiagonalGaussian, StandardNormal


class Prior(Protocol):
    """A description of p(z), from which a model builds the module."""

    def build(self, latent_dim: int) -> nn.Module:
        """Return a module: () -> distribution with event shape (D,)."""
        ...


@dataclass(frozen=True)
class StandardNormalPrior:
    """N(0, I).

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114
    """

    def build(self, latent_dim: int) -> nn.Module:
        """Return the module: () -> DiagonalGaussian with event shape (D,)."""
        return _StandardNormal(latent_dim)


class _StandardNormal(nn.Module):
    zeros: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> DiagonalGaussian:
        return StandardNormal(self.zeros)
