"""The function of Styblinski and Tang."""

from __future__ import annotations

from torch import Tensor

from vaebench.energies.exact import ProductEnergy
from vaebench.messages import check_range


class StyblinskiTangEnergy(ProductEnergy):
    r"""U(x) = sum_d (x_d^4 - 16 x_d^2 + 5 x_d) / 2.

    As a density it has one mode in practice: the second well, at positive x_d, holds 8e-7 of the mass.

    Args:
        num_dims: D, >= 1.
    """

    reach = (-5.0, 5.0)

    def __init__(self, num_dims: int = 2) -> None:
        super().__init__()
        check_range("num_dims", num_dims, at_least=1, whole=True)
        self.num_dims: int = num_dims

    def coordinate_energy(self, x: Tensor) -> Tensor:
        """The energy of each coordinate, nats, shape kept."""
        return 0.5 * (x**4 - 16 * x.square() + 5 * x)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U and 2 x^3 - 16 x + 5/2."""
        return self.forward(x), 2 * x**3 - 16 * x + 2.5
