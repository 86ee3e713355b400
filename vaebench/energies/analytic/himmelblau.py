"""Himmelblau's function."""

from __future__ import annotations

import torch
from torch import Tensor

from vaebench.energies.exact import PlanarEnergy


class HimmelblauEnergy(PlanarEnergy):
    r"""U(x) = (x_1^2 + x_2 - 11)^2 + (x_1 + x_2^2 - 7)^2: four narrow modes of unequal mass, far apart."""

    box = (-5.5, 5.5, -5.5, 5.5)

    def forward(self, x: Tensor) -> Tensor:
        """U in nats, shape (B,)."""
        return self.value_and_grad(x)[0]

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U and its gradient."""
        first = x[:, 0].square() + x[:, 1] - 11
        second = x[:, 0] + x[:, 1].square() - 7
        gradient = torch.stack([4 * x[:, 0] * first + 2 * second, 2 * first + 4 * x[:, 1] * second], -1)
        return first.square() + second.square(), gradient

    def start(self, num_chains: int) -> Tensor:
        """Draw from U(-5, 5), shape (S, 2)."""
        return 2.5 * super().start(num_chains)
