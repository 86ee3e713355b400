"""A checkerboard."""

from __future__ import annotations

import numpy as np

from vaebench.data.point_set import PointSet


class Checkerboard(PointSet):
    """Points that are uniform on the eight dark fields of a 4 x 4 board of side 8 about the origin; labels say which.

    The field in column i and row j (from the lower left, counted from 0) is dark where i + j is even.

    References:
        FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models (Grathwohl et al., 2019),
        https://arxiv.org/abs/1810.01367
    Args:
        num_points: How many points are drawn.
        num_examples: Keep this many of the training points; all by default.
    """

    name = "checkerboard"
    num_labels = 8

    def draw(self, num_points: int, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
        """See `PointSet.draw`."""
        y = random.randint(self.num_labels, size=num_points)
        row = y // 2
        column = 2 * (y % 2) + row % 2
        x = 2 * (np.stack([column, row], 1) + random.rand(num_points, 2)) - 4
        return x, y
