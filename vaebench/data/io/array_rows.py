"""Rows of a user's arrays: their layout, their range, and reading them from a mapped file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vaebench.data.io.source import Source

LAYOUTS = ("auto", "chw", "hwc")
CHANNELS = (1, 3, 4)
CHUNK = 4096


@dataclass(frozen=True)
class Values:
    """What an array holds.

    Attributes:
        kind: "binary" (0 and 1), "bytes" (whole numbers 0 to 255), "unit" (real, in [0, 1]) or "real".
    """

    kind: str

    @property
    def dtype(self) -> torch.dtype:
        """How such values are stored."""
        return torch.uint8 if self.kind in ("binary", "bytes") else torch.float32

    @property
    def scale(self) -> float:
        """A stored uint8 value k stands for k / scale."""
        return 255.0 if self.kind == "bytes" else 1.0


def is_channels_last(shape: tuple[int, ...], layout: str, where: str) -> bool:
    """Whether the last dimension of (N, *example) holds the channels.

    Raises:
        ValueError: The layout is `auto` and the shape does not tell.
    """
    if len(shape) != 4:
        return False
    if layout != "auto":
        return layout == "hwc"
    first, last = shape[1] in CHANNELS, shape[3] in CHANNELS
    if first == last:
        reason = "both could be" if first else "neither is 1, 3 or 4"
        raise ValueError(
            f"expected the second or the last dimension of {where} to be the channels, got shape {shape}, "
            f"where {reason}; set dataset.layout to chw or hwc"
        )
    return last


def scan(array: np.ndarray, where: str) -> Values:
    """Look at every value once.

    Raises:
        ValueError: There is none, or one is not finite, or whole numbers are outside 0 to 255.
    """
    if array.size == 0:
        raise ValueError(f"expected examples in {where}, got an empty array of shape {array.shape}")
    is_binary, low, high = True, np.inf, -np.inf
    for start in range(0, len(array), CHUNK):
        part = np.asarray(array[start : start + CHUNK])
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                part = part.astype(np.float32)
            _refuse_non_finite(part, start, where)
        low, high = min(low, part.min()), max(high, part.max())
        is_binary = is_binary and bool(((part == 0) | (part == 1)).all())
    if is_binary:
        return Values("binary")
    if array.dtype.kind == "f":
        return Values("unit" if low >= 0 and high <= 1 else "real")
    if low < 0 or high > 255:
        raise ValueError(
            f"expected whole numbers from 0 to 255 in {where}, got {low} to {high}; store other values as floats"
        )
    return Values("bytes")


def _refuse_non_finite(part: np.ndarray, start: int, where: str) -> None:
    finite = np.isfinite(part)
    if not finite.all():
        row = int(np.argmin(finite.reshape(len(part), -1).all(1)))
        value = part[row][~finite[row]].flat[0]
        raise ValueError(f"expected finite numbers in {where}, got {value} (as float32) in row {start + row}")


class ArrayRows(Source):
    """Rows of an array, which may be a mapped file.

    Args:
        array: Shape (N, D), (N, H, W), (N, C, H, W) or (N, H, W, C).
        values: What it holds.
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
            shape = (shape[2], shape[0], shape[1])
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
            part = part.transpose(0, 3, 1, 2)
        dtype = np.uint8 if self.dtype == torch.uint8 else np.float32
        return torch.from_numpy(np.array(part, dtype=dtype, order="C")).reshape(len(part), *self.shape)
