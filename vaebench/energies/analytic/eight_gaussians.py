"""Eight Gaussians on a circle."""

from __future__ import annotations

import math

from vaebench.energies.analytic.gaussian_mixture import GaussianMixtureEnergy


class EightGaussiansEnergy(GaussianMixtureEnergy):
    r"""A mixture of eight equal Gaussians on a circle in the plane.

    Args:
        radius: Of the circle, > 0.
        scale: Standard deviation of each, > 0.
    """

    def __init__(self, radius: float = 2.0, scale: float = 0.4) -> None:
        angles = [math.pi * k / 4 for k in range(8)]
        super().__init__([(radius * math.cos(a), radius * math.sin(a)) for a in angles], scale)
        self.radius = radius
