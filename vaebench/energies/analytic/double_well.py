"""A product of double wells: 2^D modes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaebench.energies.base import ExactEnergy
from vaebench.messages import check_range


class DoubleWellEnergy(ExactEnergy):
    r"""U(x) = h sum_d (x_d^2 - b^2)^2.

    Args:
        num_dims: D, >= 1.
        barrier_height: h, nats between the wells where b = 1, > 0.
        b: Half the distance of the wells, > 0.
    """

    def __init__(self, num_dims: int = 2, barrier_height: float = 2.0, b: float = 1.0) -> None:
        super().__init__()
        check_range("num_dims", num_dims, at_least=1, whole=True)
        check_range("barrier_height", barrier_height, above=0, below=math.inf)
        check_range("b", b, above=0, below=math.inf)
        self.num_dims: int = num_dims
        self.barrier_height = barrier_height
        self.b = b

    def forward(self, x: Tensor) -> Tensor:
        """U in nats, shape (B,)."""
        return self.barrier_height * (x.square() - self.b**2).square().sum(-1)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U, shape (B,), and 4 h x (x^2 - b^2), shape (B, D)."""
        excess = x.square() - self.b**2
        return self.barrier_height * excess.square().sum(-1), 4 * self.barrier_height * x * excess

    def exact_sample(self, num_samples: int) -> Tensor:
        """Invert the distribution function of a coordinate on a fine grid (error below 1e-7), float64, shape (N, D)."""
        reach = (self.b**2 + (40 / self.barrier_height) ** 0.5) ** 0.5  # beyond it the density is below exp(-40)
        grid = torch.linspace(-reach, reach, 20_001, dtype=torch.float64)
        density = torch.exp(-self.barrier_height * (grid.square() - self.b**2).square())
        cumulative = torch.cumulative_trapezoid(density, grid)
        cumulative = torch.cat([cumulative.new_zeros(1), cumulative]) / cumulative[-1]
        u = torch.rand(num_samples, self.num_dims, dtype=torch.float64)
        right = torch.searchsorted(cumulative, u).clamp(1, len(grid) - 1)
        low, high = cumulative[right - 1], cumulative[right]
        return grid[right - 1] + (u - low) / (high - low) * (grid[right] - grid[right - 1])

    def start(self, num_chains: int) -> Tensor:
        """Draw from U(-2b, 2b), which holds all wells, shape (S, D)."""
        return self.b * super().start(num_chains)
