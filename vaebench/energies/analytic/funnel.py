"""Neal's funnel."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaebench.energies.base import ExactEnergy
from vaebench.messages import check_range


class FunnelEnergy(ExactEnergy):
    r"""v ~ N(0, s^2), x_i given v ~ N(0, e^v): U(v, x) = v^2 / (2 s^2) + (D - 1) v / 2 + e^-v |x|^2 / 2.

    References:
        Slice sampling (Neal, 2003), https://doi.org/10.1214/aos/1056562461; D = 10 and s = 3 are his.
    Args:
        num_dims: D, >= 2; the first dimension is v.
        scale: s, > 0.
    """

    def __init__(self, num_dims: int = 10, scale: float = 3.0) -> None:
        super().__init__()
        check_range("num_dims", num_dims, at_least=2, whole=True)
        check_range("scale", scale, above=0, below=math.inf)
        self.num_dims: int = num_dims
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """U in nats, shape (B,)."""
        return self.value_and_grad(x)[0]

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U and its gradient."""
        v, rest = x[:, :1], x[:, 1:]
        weighted = torch.exp(-v) * rest
        half = 0.5 * (weighted * rest).sum(-1, keepdim=True)
        count = (self.num_dims - 1) / 2
        energy = v.square() / (2 * self.scale**2) + count * v + half
        return energy.squeeze(-1), torch.cat([v / self.scale**2 + count - half, weighted], -1)

    def exact_sample(self, num_samples: int) -> Tensor:
        """Draw v, then the rest, float64, shape (N, D)."""
        noise = torch.randn(num_samples, self.num_dims, dtype=torch.float64)
        v = self.scale * noise[:, :1]
        return torch.cat([v, torch.exp(v / 2) * noise[:, 1:]], -1)
