"""Two spirals."""

from __future__ import annotations

import numpy as np

from vaebench.data.point_set import PointSet
from vaebench.messages import check_range

TURNS = 1.5


class Spirals(PointSet):
    """Points on two arms of a spiral, one and a half turns out to radius 4, with Gaussian noise; labels say which.

    The square of the radius is uniform along an arm, so that its ends are as thin as its middle; the second arm is the
    first, turned by half a circle.

    References:
        FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models (Grathwohl et al., 2019),
        https://arxiv.org/abs/1810.01367
    Args:
        noise: Standard deviation around the arms, >= 0.
        num_points: How many points are drawn.
        num_examples: Keep this many of the training points; all by default.
    """

    name = "spirals"

    def __init__(self, noise: float = 0.1, num_points: int = 10000, num_examples: int | None = None) -> None:
        check_range("noise", noise, at_least=0, below=float("inf"))
        self.noise = noise
        super().__init__(num_points, num_examples)

    def draw(self, num_points: int, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
        """See `PointSet.draw`."""
        y = random.randint(2, size=num_points)
        radius = np.sqrt(random.rand(num_points))
        angle = 2 * np.pi * TURNS * radius + np.pi * y
        x = 4 * radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        return x + self.noise * random.randn(num_points, 2), y
