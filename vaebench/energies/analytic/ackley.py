"""Ackley's function, confined."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaebench.energies.exact import PlanarEnergy
from vaebench.messages import check_range


class AckleyEnergy(PlanarEnergy):
    r"""U(x) = -a exp(-b r / sqrt 2) - exp(mean_d cos(c x_d)) + a + e + |x|^2 / (2 s^2), with r = |x|, on the plane.

    Deviations:
        Ackley's function is bounded, so that exp(-U) has infinite mass; the last term confines it.
    Args:
        a: Depth of the funnel, nats.
        b: Its steepness, > 0.
        c: Frequency of the ripples.
        confinement: s > 0; large leaves more of the plateau.
    """

    def __init__(self, a: float = 20.0, b: float = 0.2, c: float = 2 * math.pi, confinement: float = 5.0) -> None:
        super().__init__()
        check_range("b", b, above=0, below=math.inf)
        check_range("confinement", confinement, above=0, below=math.inf)
        self.a, self.b, self.c = a, b, c
        self.confinement = confinement
        reach = 8.0 if a >= 15 else 8 * confinement  # deep funnels leave less than 1e-5 of the mass outside
        self.box = (-reach, reach, -reach, reach)

    def forward(self, x: Tensor) -> Tensor:
        """U in nats, shape (B,)."""
        square = x.square().sum(-1)
        root = (square / 2 + 1e-24).sqrt()  # differentiable at 0
        ripples = torch.exp(torch.cos(self.c * x).mean(-1))
        funnel = -self.a * torch.exp(-self.b * root)
        return funnel - ripples + self.a + math.e + square / (2 * self.confinement**2)
