"""The base of the sets of points in the plane: drawn by the program from a known distribution."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch

from vaebench.data.dataset import Dataset
from vaebench.data.examples import SPLIT_SEED, Examples
from vaebench.messages import check_range

PARTS = (0.8, 0.1, 0.1)


class PointSet(Dataset):
    """Base of the point sets: x is real, shape (2,); the likelihood that suits it is a Gaussian of learned scale.

    Points are drawn independently from a fixed seed, the same on every machine; 80 % train, 10 % validate, 10 % test.

    Args:
        num_points: How many points are drawn, >= 10.
        num_examples: Keep this many of the training points; all by default.
    """

    num_labels: int = 2

    def __init__(self, num_points: int = 10000, num_examples: int | None = None) -> None:
        check_range("num_points", num_points, at_least=10, at_most=10**7, whole=True)
        # NumPy guarantees that RandomState's stream never changes.
        x, y = self.draw(num_points, np.random.RandomState(SPLIT_SEED))
        points = torch.from_numpy(x.astype(np.float32))
        labels = torch.from_numpy(y.astype(np.int64))
        stops = [round(num_points * PARTS[0]), round(num_points * (PARTS[0] + PARTS[1]))]
        train, validation, test = (
            Examples(part, label)
            for part, label in zip(points.tensor_split(stops), labels.tensor_split(stops), strict=True)
        )
        super().__init__(
            train,
            validation,
            test,
            likelihood_name="gaussian",
            likelihood_arguments={"learn_scale": True},
            num_examples=num_examples,
            num_classes=self.num_labels,
        )

    @abstractmethod
    def draw(self, num_points: int, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
        """Draw points, shape (N, 2), and the labels of what they belong to, shape (N,)."""
