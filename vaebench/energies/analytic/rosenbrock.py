"""Rosenbrock's banana."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaebench.energies.base import ExactEnergy
from vaebench.messages import check_range


class RosenbrockEnergy(ExactEnergy):
    r"""U(x) = b (x_2 - x_1^2)^2 + (a - x_1)^2, on the plane.

    Args:
        a: Mean of x_1.
        b: Sharpness of the ridge, > 0.
    """

    num_dims = 2

    def __init__(self, a: float = 1.0, b: float = 100.0) -> None:
        super().__init__()
        check_range("a", a, above=-math.inf, below=math.inf)
        check_range("b", b, above=0, below=math.inf)
        self.a = a
        self.b = b

    def forward(self, x: Tensor) -> Tensor:
        """U in nats, shape (B,)."""
        return self.b * (x[:, 1] - x[:, 0].square()).square() + (self.a - x[:, 0]).square()

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U, shape (B,), and its gradient, shape (B, 2)."""
        ridge = x[:, 1] - x[:, 0].square()
        away = x[:, 0] - self.a
        gradient = torch.stack([2 * away - 4 * self.b * ridge * x[:, 0], 2 * self.b * ridge], -1)
        return self.b * ridge.square() + away.square(), gradient

    def exact_sample(self, num_samples: int) -> Tensor:
        """Draw x_1 ~ N(a, 1/2), then x_2 given x_1 ~ N(x_1^2, 1/(2b)), float64, shape (N, 2)."""
        noise = torch.randn(num_samples, 2, dtype=torch.float64)
        first = self.a + noise[:, 0] * math.sqrt(0.5)
        return torch.stack([first, first.square() + noise[:, 1] / math.sqrt(2 * self.b)], -1)
