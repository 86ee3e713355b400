"""Eight Gaussians on a circle."""

from __future__ import annotations

import numpy as np

from vaebench.data.point_set import PointSet
from vaebench.messages import check_range


class EightGaussians(PointSet):
    """Points of eight equal Gaussians whose centres lie on a circle of radius 2; labels say of which.

    References:
        FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models (Grathwohl et al., 2019),
        https://arxiv.org/abs/1810.01367
    Args:
        scale: Standard deviation of each, > 0.
        num_points: How many points are drawn.
        num_examples: Keep this many of the training points; all by default.
    """

    name = "eight_gaussians"
    num_labels = 8

    def __init__(self, scale: float = 0.2, num_points: int = 10000, num_examples: int | None = None) -> None:
        check_range("scale", scale, above=0, below=float("inf"))
        self.scale = scale
        super().__init__(num_points, num_examples)

    def draw(self, num_points: int, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
        """See `PointSet.draw`."""
        y = random.randint(self.num_labels, size=num_points)
        angle = 2 * np.pi * y / self.num_labels
        x = 2 * np.stack([np.cos(angle), np.sin(angle)], 1)
        return x + self.scale * random.randn(num_points, 2), y
