"""Exact draws from densities on a line or in the plane, by inverting their distribution function on a fine grid."""

from __future__ import annotations

from abc import abstractmethod
from functools import lru_cache

import torch
from torch import Tensor

from vaebench.energies.base import ExactEnergy


class ProductEnergy(ExactEnergy):
    """A sum of one function of each coordinate: U(x) = sum_d u(x_d).

    A subclass defines `coordinate_energy`, and `reach`, beyond whose ends the density is negligible.
    """

    num_dims: int
    reach: tuple[float, float]

    @abstractmethod
    def coordinate_energy(self, x: Tensor) -> Tensor:
        """The function u, nats, shape kept."""

    def forward(self, x: Tensor) -> Tensor:
        """U in nats, shape (B,)."""
        return self.coordinate_energy(x).sum(-1)

    def exact_sample(self, num_samples: int) -> Tensor:
        """Invert the distribution function of a coordinate on a grid of 40,001 points, float64, shape (N, D)."""
        grid = torch.linspace(*self.reach, 40_001, dtype=torch.float64)
        energy = self.coordinate_energy(grid)
        cumulative = torch.cumulative_trapezoid(torch.exp(energy.min() - energy), grid)
        cumulative = torch.cat([cumulative.new_zeros(1), cumulative]) / cumulative[-1]
        u = torch.rand(num_samples, self.num_dims, dtype=torch.float64)
        right = torch.searchsorted(cumulative, u).clamp(1, len(grid) - 1)
        low, high = cumulative[right - 1], cumulative[right]
        return grid[right - 1] + (u - low) / (high - low) * (grid[right] - grid[right - 1])


class PlanarEnergy(ExactEnergy):
    """An energy on the plane whose mass lies in a box."""

    num_dims = 2
    box: tuple[float, float, float, float]
    """Least and largest x_1, least and largest x_2."""

    def exact_sample(self, num_samples: int) -> Tensor:
        """Draw a cell of a grid of 2000 x 2000, then a point in it, float64, shape (N, 2)."""
        return draw_on_grid(self, self.box, num_samples)


def draw_on_grid(energy: ExactEnergy, box: tuple[float, float, float, float], num_samples: int) -> Tensor:
    """Draw from a density on the plane: a cell of a grid by its mass, then a point in it; shape (N, 2)."""
    x, y, cumulative, width = _cells(energy, box)
    cell = torch.searchsorted(cumulative, torch.rand(num_samples, dtype=torch.float64)).clamp(max=len(cumulative) - 1)
    centres = torch.stack([x[cell // len(y)], y[cell % len(y)]], -1)
    return centres + (torch.rand_like(centres) - 0.5) * width


@lru_cache(maxsize=16)
def _cells(energy: ExactEnergy, box: tuple[float, float, float, float], size: int = 2000) -> tuple[Tensor, ...]:
    width = torch.tensor([(box[1] - box[0]) / size, (box[3] - box[2]) / size], dtype=torch.float64)
    steps = torch.arange(size, dtype=torch.float64) + 0.5
    x, y = box[0] + steps * width[0], box[2] + steps * width[1]
    with torch.no_grad():
        values = torch.cat([energy.energy(torch.cartesian_prod(part, y)) for part in x.split(250)])
    cumulative = torch.exp(values.min() - values).cumsum(0)
    return x, y, cumulative / cumulative[-1], width
