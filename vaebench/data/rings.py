"""Concentric rings."""

from __future__ import annotations

import numpy as np

from vaebench.data.point_set import PointSet
from vaebench.messages import check_range


class Rings(PointSet):
    """Points on four circles around the origin, of radius 1 to 4, with Gaussian noise; labels say which.

    Each circle has the same share of the points.

    References:
        FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models (Grathwohl et al., 2019),
        https://arxiv.org/abs/1810.01367
    Args:
        noise: Standard deviation around the circles, >= 0.
        num_points: How many points are drawn.
        num_examples: Keep this many of the training points; all by default.
    """

    name = "rings"
    num_labels = 4

    def __init__(self, noise: float = 0.08, num_points: int = 10000, num_examples: int | None = None) -> None:
        check_range("noise", noise, at_least=0, below=float("inf"))
        self.noise = noise
        super().__init__(num_points, num_examples)

    def draw(self, num_points: int, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
        """See `PointSet.draw`."""
        y = random.randint(self.num_labels, size=num_points)
        angle = 2 * np.pi * random.rand(num_points)
        x = (y[:, None] + 1) * np.stack([np.cos(angle), np.sin(angle)], 1)
        return x + self.noise * random.randn(num_points, 2), y
