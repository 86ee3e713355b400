"""Distances to nearest neighbours among features, a chunk of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK = 500


def radii(x: Tensor, k: int) -> Tensor:
    """Return the distance from each row to its k-th nearest other row, shape (N,)."""
    found = [torch.cdist(part, x).kthvalue(k + 1, dim=1).values for part in x.split(CHUNK)]  # k + 1: x is in x
    return torch.cat(found)


def distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Yield distances from rows of x to all rows of y, shape (chunk, M), float64."""
    for part in x.split(CHUNK):
        yield torch.cdist(part, y)
