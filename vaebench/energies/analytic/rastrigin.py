"""Rastrigin's egg box."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaebench.energies.exact import ProductEnergy
from vaebench.messages import check_range


class RastriginEnergy(ProductEnergy):
    r"""U(x) = sum_d a + x_d^2 - a cos(2 pi x_d): a well around every point of the integer lattice.

    Args:
        num_dims: D, >= 1.
        a: Half the height of the barriers, nats, >= 0.
    """

    def __init__(self, num_dims: int = 2, a: float = 10.0) -> None:
        super().__init__()
        check_range("num_dims", num_dims, at_least=1, whole=True)
        check_range("a", a, at_least=0, below=math.inf)
        self.num_dims: int = num_dims
        self.a = a
        self.reach = (-7.0, 7.0)

    def coordinate_energy(self, x: Tensor) -> Tensor:
        """The energy of each coordinate, nats, shape kept."""
        return self.a + x.square() - self.a * torch.cos(2 * math.pi * x)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U and 2 x + 2 pi a sin(2 pi x)."""
        return self.forward(x), 2 * x + 2 * math.pi * self.a * torch.sin(2 * math.pi * x)
