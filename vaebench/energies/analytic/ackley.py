"""Ackley's function, confined."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaebench.energies.base import ExactEnergy
from vaebench.messages import check_range


class AckleyEnergy(ExactEnergy):
    r"""U(x) = -a exp(-b r / sqrt D) - exp(mean_d cos(c x_d)) + a + e + r^2 / (2 s^2), with r = |x|.

    Deviations:
        Ackley's function is bounded, so that exp(-U) has infinite mass; the last term confines it.
    Args:
        num_dims: D, >= 1.
        a: Depth of the funnel, nats.
        b: Its steepness, > 0.
        c: Frequency of the ripples.
        confinement: s > 0; large leaves more of the plateau.
    """

    def __init__(
        self, num_dims: int = 2, a: float = 20.0, b: float = 0.2, c: float = 2 * math.pi, confinement: float = 5.0
    ) -> None:
        super().__init__()
        check_range("num_dims", num_dims, at_least=1, whole=True)
        check_range("b", b, above=0, below=math.inf)
        check_range("confinement", confinement, above=0, below=math.inf)
        self.num_dims: int = num_dims
        self.a, self.b, self.c = a, b, c
        self.confinement = confinement

    def forward(self, x: Tensor) -> Tensor:
        """U in nats, shape (B,)."""
        radius = (x.square().sum(-1) + 1e-24).sqrt()  # differentiable at 0
        return self._without_ripples(radius) + math.e - torch.exp(torch.cos(self.c * x).mean(-1))

    def _without_ripples(self, radius: Tensor) -> Tensor:
        funnel = self.a - self.a * torch.exp(-self.b * radius / math.sqrt(self.num_dims))
        return funnel + radius.square() / (2 * self.confinement**2)

    def exact_sample(self, num_samples: int) -> Tensor:
        """Draw points without ripples, a radius and a direction, and take them with the probability of the ripples.

        The ripples multiply the density by at most e^e and at least e^(1/e), so that at least a tenth of the proposals
        is accepted. Float64, shape (N, D).
        """
        reach = self.confinement * (math.sqrt(self.num_dims) + 8)
        edges = torch.linspace(0, 1, 40_001, dtype=torch.float64).square() * reach  # finer where the funnel is
        middles = (edges[1:] + edges[:-1]) / 2
        log_mass = (self.num_dims - 1) * middles.log() - self._without_ripples(middles) + edges.diff().log()
        cumulative = (log_mass - log_mass.max()).exp().cumsum(0)
        taken: list[Tensor] = []
        while sum(map(len, taken)) < num_samples:
            u = torch.rand(max(num_samples, 100), 3, dtype=torch.float64)
            cell = torch.searchsorted(cumulative, u[:, 0] * cumulative[-1]).clamp(max=len(middles) - 1)
            radius = edges[cell] + u[:, 1] * (edges[cell + 1] - edges[cell])
            direction = torch.randn(len(u), self.num_dims, dtype=torch.float64)
            x = direction * (radius / direction.norm(dim=-1)).unsqueeze(-1)
            taken.append(x[u[:, 2].log() <= torch.exp(torch.cos(self.c * x).mean(-1)) - math.e])
        return torch.cat(taken)[:num_samples]
