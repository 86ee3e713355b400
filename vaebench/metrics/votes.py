"""Examples that share a factor, drawn from a finite set: what the scores by classification are made of."""

from __future__ import annotations

import torch
from torch import Tensor


class Sharing:
    """For one factor, draws examples that have the same value of it.

    Args:
        values: The factor's value in each example, int64, shape (N,).
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.order = values.argsort(stable=True)
        self.counts = values.bincount()
        self.starts = self.counts.cumsum(0) - self.counts

    def partners(self, examples: Tensor) -> Tensor:
        """Return for each example another (or, by chance, itself) with the same value; positions, same shape."""
        value = self.values[examples]
        place = (torch.rand(examples.shape, dtype=torch.float64) * self.counts[value]).long()
        return self.order[self.starts[value] + place]
