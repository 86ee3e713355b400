"""A product of double wells: 2^D modes."""

from __future__ import annotations

import math

from torch import Tensor

from vaebench.energies.exact import ProductEnergy
from vaebench.messages import check_range


class DoubleWellEnergy(ProductEnergy):
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
        reach = (b**2 + (40 / barrier_height) ** 0.5) ** 0.5  # beyond, the density is below exp(-40)
        self.reach = (-reach, reach)

    def coordinate_energy(self, x: Tensor) -> Tensor:
        """The energy of each coordinate, nats, shape kept."""
        return self.barrier_height * (x.square() - self.b**2).square()

    def gradient(self, x: Tensor) -> Tensor:
        """4 h x (x^2 - b^2), shape (B, D)."""
        return x.square().sub_(self.b**2).mul_(x).mul_(4 * self.barrier_height)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U, shape (B,), and 4 h x (x^2 - b^2), shape (B, D)."""
        excess = x.square().sub_(self.b**2)
        energy = excess.square().sum(-1).mul_(self.barrier_height)
        return energy, excess.mul_(x).mul_(4 * self.barrier_height)

    def start(self, num_chains: int) -> Tensor:
        """Draw from U(-2b, 2b), which holds all wells, shape (S, D)."""
        return self.b * super().start(num_chains)
