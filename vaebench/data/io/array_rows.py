"""Rows of a user's arrays: their layout, and reading them from a mapped file."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vaebench.data.io.source import Source
from vaebench.data.io.values import CHANNELS, CHUNK, Values

LAYOUTS = ("auto", "chw", "hwc")


def is_channels_last(shape: tuple[int, ...], layout: str, where: str) -> bool:
    """Whether the last dimension of (N, *example), pictures or videos, holds the channels.

    Raises:
        ValueError: The layout is `auto` and the shape does not tell.
    """
    if len(shape) not in (4, 5):
        return False
    if layout != "auto":
        return layout == "hwc"
    first, last = shape[-3] in CHANNELS, shape[-1] in CHANNELS
    if first == last:
        reason = "both could be" if first else "neither is 1, 3 or 4"
        raise ValueError(
            f"expected the {'second' if len(shape) == 4 else 'third'} or the last dimension of {where} to be the "
            f"channels, got shape {shape}, "
            f"where {reason}; set dataset.layout to chw or hwc"
        )
    return last


class ArrayRows(Source):
    """Rows of an array, which may be a mapped file.

    Args:
        array: Shape (N, D), (N, H, W), (N, C, H, W), (N, H, W, C), (N, T, C, H, W) or (N, T, H, W, C).
        values: What its numbers stand for.
        channels_last: Whether the last dimension is the channels.
        rows: Which rows, in which order; all by default.
    """

    def __init__(
        self, array: np.ndarray, values: Values, channels_last: bool = False, rows: Tensor | None = None
    ) -> None:
        self._array, self._values, self._channels_last = array, values, channels_last
        self._rows = torch.arange(len(array)) if rows is None else rows
        shape = array.shape[1:]
        if channels_last:
            shape = (*shape[:-3], shape[-1], *shape[-3:-1])
        self.shape = (1, *shape) if len(shape) == 2 else tuple(shape)
        self.dtype = values.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: Tensor) -> Tensor:
        """Read rows; see `Source.read`."""
        return self._convert(self._array[self._rows[indices].numpy()])

    def take(self, indices: Tensor) -> Source:
        """Return some of the rows; see `Source.take`."""
        return ArrayRows(self._array, self._values, self._channels_last, self._rows[indices])

    def read_all(self) -> Tensor:
        """Read every row, in the array's order, without a second copy of more than some rows."""
        x = torch.empty((len(self._array), *self.shape), dtype=self.dtype)
        for start in range(0, len(x), CHUNK):
            x[start : start + CHUNK] = self._convert(self._array[start : start + CHUNK])
        return x[self._rows] if len(self._rows) != len(x) else x

    def _convert(self, part: np.ndarray) -> Tensor:
        if self._channels_last:
            part = np.moveaxis(part, -1, -3)
        return torch.from_numpy(self._values.convert(part)).reshape(len(part), *self.shape)
