"""A split of whose reads somebody is told, so that long work over it can show how far it is, and be given up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from vaebench.core import Batch


class WatchedSplit:
    """The training split as a model's hooks read it.

    Args:
        split: The split.
        on_read: Called before examples are handed out, with the number handed out so far; it may raise.
    """

    def __init__(self, split: Any, on_read: Callable[[int], None]) -> None:
        self._split = split
        self._on_read = on_read
        self._num_read = 0

    def __len__(self) -> int:
        return len(self._split)

    def batch(self, indices: Tensor) -> Batch:
        """Return the examples at these positions."""
        self._on_read(self._num_read)
        self._num_read += len(indices)
        return self._split.batch(indices)
