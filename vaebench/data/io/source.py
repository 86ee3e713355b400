"""Examples that stay on disk and are read when they are asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Source(ABC):
    """Rows on disk, read by position; what a row holds depends on its position only.

    Attributes:
        shape: Shape of one example.
        dtype: `torch.uint8` or `torch.float32`.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples."""

    @abstractmethod
    def read(self, indices: Tensor) -> Tensor:
        """Read some examples.

        Args:
            indices: Positions, int64, shape (B,), on the CPU.

        Returns:
            Shape (B, *shape), of type `dtype`, on the CPU.

        Raises:
            ValueError: An example cannot be read; the sentence names it.
        """

    @abstractmethod
    def take(self, indices: Tensor) -> Source:
        """Return a source of the examples at `indices`, in that order; nothing is read."""
