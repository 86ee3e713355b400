"""Black and white from grey: by a threshold, drawn once, or drawn anew for every batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vaebench.data.examples import SPLIT_SEED, Examples
from vaebench.data.io.source import Source
from vaebench.data.split import DataSplit
from vaebench.hardware import collective
from vaebench.messages import did_you_mean

BINARIZATIONS = ("none", "threshold", "dynamic", "static")


def check_binarization(binarization: str) -> None:
    """Refuse an unknown kind.

    Raises:
        ValueError: It is not one of `BINARIZATIONS`.
    """
    if binarization not in BINARIZATIONS:
        raise ValueError(
            f"expected dataset.binarization to be one of {', '.join(BINARIZATIONS)}, got {binarization!r}"
            + did_you_mean(str(binarization), BINARIZATIONS)
        )


def make_split(examples: Examples, *, scale: float, binarization: str, part: str) -> DataSplit:
    """Build a split, binarised where asked.

    `threshold`: x > 0.5. `static`: each value is drawn once, Bernoulli(x), from a fixed seed and its position.
    `dynamic`: training values are drawn anew for every batch, through `hardware.collective`; validation and test are as
    in `static`, so that evaluations compare.

    Args:
        examples: Grey values.
        scale: A stored uint8 value k stands for k / scale.
        binarization: One of `BINARIZATIONS`.
        part: "train", "validation" or "test".
    """
    x = examples.x

    def split(x: Tensor | Source, scale: float, transform: Callable[[Tensor], Tensor] | None = None) -> DataSplit:
        return DataSplit(
            x, examples.y, context=examples.context, factors=examples.factors, scale=scale, transform=transform
        )

    if binarization == "none":
        return split(x, scale)
    if binarization == "dynamic" and part == "train":
        return split(x, scale, draw)
    salt = ("train", "validation", "test").index(part)
    if isinstance(x, Source):
        if binarization == "threshold":
            return split(x, scale, threshold)
        return split(_StaticDraws(x, torch.arange(len(x)), scale, salt), 1.0)
    binary = torch.empty(x.shape, dtype=torch.uint8)
    for rows in torch.arange(len(x)).split(1000):
        grey = DataSplit(x[rows], scale=scale).x
        binary[rows] = threshold(grey).to(torch.uint8) if binarization == "threshold" else _static(grey, rows, salt)
    return split(binary, 1.0)


def threshold(x: Tensor) -> Tensor:
    """Return 1 where x > 0.5, else 0; same shape."""
    return (x > 0.5).to(x.dtype)


def draw(x: Tensor) -> Tensor:
    """Draw 1 with probability x, else 0; same shape."""
    return (collective.uniform(tuple(x.shape), like=x) < x).to(x.dtype)


def _static(grey: Tensor, positions: Tensor, salt: int) -> Tensor:
    """Bernoulli(grey) as uint8; what a row gets depends on its position only, not on how it is read."""
    numel = grey[0].numel() if len(grey) else 0
    counter = positions.numpy().astype(np.uint64)[:, None] * np.uint64(numel) + np.arange(numel, dtype=np.uint64)
    uniforms = _uniform(counter + (np.uint64(salt) << np.uint64(48)))
    return torch.from_numpy((uniforms < grey.reshape(len(grey), -1).numpy()).astype(np.uint8)).reshape(grey.shape)


def _uniform(counter: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014) as numbers in [0, 1), one for each uint64 counter."""
    z = (counter + np.uint64(SPLIT_SEED + 1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


class _StaticDraws(Source):
    """Examples on disk, binarised once."""

    dtype = torch.uint8

    def __init__(self, grey: Source, positions: Tensor, scale: float, salt: int) -> None:
        self.shape = grey.shape
        self._grey, self._positions, self._scale, self._salt = grey, positions, scale, salt

    def __len__(self) -> int:
        return len(self._positions)

    def read(self, indices: Tensor) -> Tensor:
        grey = DataSplit(self._grey.read(indices), scale=self._scale).x
        return _static(grey, self._positions[indices], self._salt)

    def take(self, indices: Tensor) -> Source:
        return _StaticDraws(self._grey.take(indices), self._positions[indices], self._scale, self._salt)
