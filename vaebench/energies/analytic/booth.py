"""Booth's function."""

from __future__ import annotations

import torch
from torch import Tensor

from vaebench.energies.base import ExactEnergy


class BoothEnergy(ExactEnergy):
    r"""U(x) = (x_1 + 2 x_2 - 7)^2 + (2 x_1 + x_2 - 5)^2: a Gaussian with mean (1, 3)."""

    num_dims = 2

    def forward(self, x: Tensor) -> Tensor:
        """U in nats, shape (B,)."""
        return self.value_and_grad(x)[0]

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U and its gradient."""
        first = x[:, 0] + 2 * x[:, 1] - 7
        second = 2 * x[:, 0] + x[:, 1] - 5
        gradient = torch.stack([2 * first + 4 * second, 4 * first + 2 * second], -1)
        return first.square() + second.square(), gradient

    def exact_sample(self, num_samples: int) -> Tensor:
        """Solve A x = (7, 5) + e / sqrt(2), float64, shape (N, 2)."""
        noise = torch.randn(num_samples, 2, dtype=torch.float64) / 2**0.5
        right = noise + torch.tensor([7.0, 5.0], dtype=torch.float64)
        matrix = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
        return torch.linalg.solve(matrix, right.T).T
