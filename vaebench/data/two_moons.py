"""Two moons."""

from __future__ import annotations

import numpy as np

from vaebench.data.point_set import PointSet
from vaebench.messages import check_range


class TwoMoons(PointSet):
    """Points on two half circles of radius 1 that reach into each other, with Gaussian noise; labels say which.

    The upper one is centred at (0, 0), the lower one at (1, 0.5).

    References:
        Scikit-learn: Machine Learning in Python (Pedregosa et al., 2011), `make_moons`,
        https://jmlr.org/papers/v12/pedregosa11a.html
    Args:
        noise: Standard deviation around the circles, >= 0.
        num_points: How many points are drawn.
        num_examples: Keep this many of the training points; all by default.
    """

    name = "two_moons"

    def __init__(self, noise: float = 0.1, num_points: int = 10000, num_examples: int | None = None) -> None:
        check_range("noise", noise, at_least=0, below=float("inf"))
        self.noise = noise
        super().__init__(num_points, num_examples)

    def draw(self, num_points: int, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
        """See `PointSet.draw`."""
        y = random.randint(2, size=num_points)
        angle = np.pi * random.rand(num_points)
        upper = np.stack([np.cos(angle), np.sin(angle)], 1)
        x = np.where(y[:, None] == 0, upper, np.array([1.0, 0.5]) - upper)
        return x + self.noise * random.randn(num_points, 2), y
