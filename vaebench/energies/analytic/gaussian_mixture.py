"""A mixture of round Gaussians."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vaebench.energies.base import ExactEnergy
from vaebench.messages import check_range


class GaussianMixtureEnergy(ExactEnergy):
    r"""U(x) = -log sum_k w_k N(x; m_k, s^2 I), normalised.

    Args:
        means: m_k, shape (K, D).
        scale: s, > 0.
        weights: w_k > 0, shape (K,), in any unit; null for equal ones.
    """

    def __init__(
        self,
        means: Sequence[Sequence[float]] = ((-2.0, 0.0), (2.0, 0.0), (0.0, 2.0)),
        scale: float = 0.6,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_range("scale", scale, above=0, below=math.inf)
        weights = [1.0] * len(means) if weights is None else list(weights)
        if not means or len({len(mean) for mean in means}) != 1 or len(weights) != len(means):
            raise ValueError(
                f"means must be points of one dimension, with a weight for each; got {len(means)} means of "
                f"{sorted({len(mean) for mean in means})} dimensions and {len(weights)} weights"
            )
        for weight in weights:
            check_range("weights", weight, above=0, below=math.inf)
        self.register_buffer("means", torch.tensor([list(mean) for mean in means]))
        self.register_buffer("log_weights", torch.tensor(weights).log().log_softmax(0))
        self.scale = scale
        self.num_dims: int = len(means[0])

    means: Tensor
    log_weights: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """U in nats, shape (B,)."""
        squares = (x.unsqueeze(-2) - self.means).square().sum(-1) / self.scale**2
        constant = 0.5 * self.num_dims * math.log(2 * math.pi * self.scale**2)
        return constant - (self.log_weights - 0.5 * squares).logsumexp(-1)

    def exact_sample(self, num_samples: int) -> Tensor:
        """Draw a component, then a point from it, shape (N, D)."""
        k = torch.multinomial(self.log_weights.exp(), num_samples, replacement=True)
        return self.means[k] + self.scale * torch.randn_like(self.means[k])

    def start(self, num_chains: int) -> Tensor:
        """Draw from a cube that holds all means, shape (S, D)."""
        return (0.5 * float(self.means.abs().max()) + self.scale) * super().start(num_chains).to(self.means)
