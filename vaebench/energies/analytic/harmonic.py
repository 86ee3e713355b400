"""The harmonic well."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaebench.energies.base import ExactEnergy
from vaebench.messages import check_range


class HarmonicEnergy(ExactEnergy):
    r"""U(x) = k |x|^2 / 2: the Gaussian N(0, I / k).

    Args:
        num_dims: D, >= 1.
        k: Stiffness, > 0.
    """

    def __init__(self, num_dims: int = 2, k: float = 1.0) -> None:
        super().__init__()
        check_range("num_dims", num_dims, at_least=1, whole=True)
        check_range("k", k, above=0, below=math.inf)
        self.num_dims: int = num_dims
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        """U in nats, shape (B,)."""
        return 0.5 * self.k * x.square().sum(-1)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U and k x."""
        return self.forward(x), self.k * x

    def exact_sample(self, num_samples: int) -> Tensor:
        """Draw from the Gaussian, float64, shape (N, D)."""
        return torch.randn(num_samples, self.num_dims, dtype=torch.float64) / math.sqrt(self.k)
