"""The meaning of the numbers in a user's own data: one rule, whatever file they come from.

Whole numbers are grey levels of 8 or 16 bits, floats stay as they are, and `dataset.scale` settles what is ambiguous.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from vaebench.messages import check_range

Scale = float | Literal["auto"]
BYTE, WORD = 255, 65535
BEYOND = 0.1  # how far floats may lie outside [0, 1] and still be taken for pixels meant to lie in it
CHUNK = 4096
CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Range:
    """The type and the range of some values.

    Attributes:
        dtype: Their type, as numpy names it.
        low: The least.
        high: The greatest.
        is_whole: Whether all are whole numbers.
        is_binary: Whether all are 0 or 1.
        is_two_tone: Whether all are 0 or 255.
    """

    dtype: str
    low: float
    high: float
    is_whole: bool
    is_binary: bool
    is_two_tone: bool

    @property
    def is_float(self) -> bool:
        """Whether they are stored as floats."""
        return np.dtype(self.dtype).kind == "f"

    def joined(self, other: Range) -> Range:
        """The range of both, under the first's type."""
        return Range(
            self.dtype,
            min(self.low, other.low),
            max(self.high, other.high),
            self.is_whole and other.is_whole,
            self.is_binary and other.is_binary,
            self.is_two_tone and other.is_two_tone,
        )

    def __str__(self) -> str:
        return f"{self.dtype} from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Values:
    """The meaning of some values.

    Attributes:
        kind: "binary" (0 and 1), "bytes" (k / 255), "levels" (k / scale, few levels), "unit" (in [0, 1]) or "real".
        scale: A value k stands for k / scale.
        dtype: How they are kept: uint8 before the division, or float32 after it.
        found: How they were understood, for the line at the start.
        caution: What is ambiguous, with the key that settles it, or "".
    """

    kind: str
    scale: float
    dtype: torch.dtype
    found: str
    caution: str = ""

    @property
    def kept_scale(self) -> float:
        """A kept uint8 k stands for k / kept_scale."""
        return self.scale if self.dtype == torch.uint8 else 1.0

    def likelihood(self, shape: tuple[int, ...]) -> tuple[str, dict[str, Any]]:
        """Name the likelihood that suits such values, and its arguments, for examples of this shape."""
        is_colour = len(shape) >= 3 and shape[-3] in CHANNELS[1:]
        if self.kind == "bytes" and is_colour:
            return "discretized_logistic", {"num_levels": BYTE + 1}
        if self.kind == "levels":
            return "binomial", {"total_count": int(self.scale)}
        arguments = {"learn_scale": True} if self.kind == "real" else {}
        names = {"binary": "bernoulli", "real": "gaussian"}
        return names.get(self.kind, "continuous_bernoulli"), arguments

    def convert(self, part: np.ndarray) -> np.ndarray:
        """Bring rows into the form in which they are kept, in memory of their own."""
        if self.dtype == torch.uint8:
            return np.array(part, dtype=np.uint8, order="C")
        if self.scale == 1:
            return np.array(part, dtype=np.float32, order="C")
        return np.ascontiguousarray((part.astype(np.float64) / self.scale).astype(np.float32))


def check_scale(scale: Scale) -> None:
    """Refuse a scale that is not a positive number.

    Raises:
        ValueError: naming the key.
    """
    if scale != "auto":
        check_range("scale", scale, above=0, below=float("inf"))  # type: ignore[arg-type]


def scan(array: np.ndarray, where: str) -> Range:
    """Look at every value once.

    Raises:
        ValueError: There is none, or one is not finite.
    """
    if array.size == 0:
        raise ValueError(f"expected examples in {where}, got an empty array of shape {array.shape}")
    found: Range | None = None
    for start in range(0, len(array), CHUNK):
        part = np.asarray(array[start : start + CHUNK])
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                part = part.astype(np.float32)
            _refuse_non_finite(part, start, where)
        seen = _range_of(part, array.dtype)
        found = seen if found is None else found.joined(seen)
    assert found is not None
    return found


def _range_of(part: np.ndarray, dtype: np.dtype) -> Range:
    is_whole = part.dtype.kind != "f" or bool((part == np.floor(part)).all())
    is_zero = part == 0
    return Range(
        dtype.name,
        float(part.min()),
        float(part.max()),
        is_whole,
        bool((is_zero | (part == 1)).all()),
        bool((is_zero | (part == BYTE)).all()),
    )


def understand(found: Range, where: str, *, scale: Scale = "auto", are_pictures: bool = True) -> Values:
    """Decide what values stand for; values that are all equal are a caution.

    Args:
        found: What was seen.
        where: Where they lie, for messages.
        scale: As the user says: a value k stands for k / scale; auto decides by type and range.
        are_pictures: Whether they are pixels, whose usual range is known.

    Raises:
        ValueError: Whole numbers outside 0 to 65535, of which nobody knows what they stand for.
    """
    values = _by_scale(found, float(scale)) if scale != "auto" else _by_range(found, where, are_pictures)
    if found.low == found.high:
        return replace(values, caution=f"every value in {where} is {found.low:g}: there is nothing to learn")
    return values


def _by_range(found: Range, where: str, are_pictures: bool) -> Values:
    if found.is_binary:
        return Values("binary", 1.0, torch.uint8, f"{found}, black and white")
    if found.is_float:
        return _floats(found, are_pictures)
    if found.low < 0 or found.high > WORD:
        raise ValueError(
            f"expected whole numbers from 0 to {BYTE} (8 bits) or {WORD} (16 bits) in {where}, got {found.low:g} to "
            f"{found.high:g}; set dataset.scale to the value that stands for 1, or store them as floats"
        )
    if found.is_two_tone:
        return Values("binary", BYTE, torch.uint8, f"{found}, black and white (k / {BYTE})")
    top = BYTE if found.high <= BYTE else WORD
    caution = ""
    if 2 * found.high < top:
        bits = 8 if top == BYTE else 16
        caution = (
            f"whole numbers from {found.low:g} to {found.high:g} are taken as grey of {bits} bits, k / {top}, which is "
            f"at most {found.high / top:.2g}; set dataset.scale={found.high:g} if {found.high:g} stands for 1, or "
            f"dataset.scale={top} to keep them so"
        )
    dtype = torch.uint8 if top == BYTE else torch.float32
    return Values("bytes" if top == BYTE else "unit", top, dtype, f"{found}, x = k / {top}", caution)


def _floats(found: Range, are_pictures: bool) -> Values:
    if found.low >= 0 and found.high <= 1:
        return Values("unit", 1.0, torch.float32, f"{found}, as they are")
    kept = f"floats from {found.low:g} to {found.high:g} are kept as they are, under a Gaussian"
    looks_like_pixels = found.low >= 0 and found.is_whole and found.high <= WORD
    caution = ""
    if are_pictures and found.low >= -BEYOND and found.high <= 1 + BEYOND and not found.is_whole:
        caution = (
            f"{kept}; clip them to [0, 1] if they are pixels that rounding or resizing brought a little outside, or "
            "set dataset.scale=1 to keep them so"
        )
    elif looks_like_pixels or (are_pictures and found.low >= 0):
        top = next((top for top in (BYTE, WORD) if found.high <= top), found.high)
        another = f", dataset.scale={found.high:g} if {found.high:g} is" if 2 * found.high < top else ""
        caution = (
            f"{kept}; set dataset.scale={top:g} if they are pixels of which {top:g} is white{another}, or "
            "dataset.scale=1 to keep them so"
        )
    elif are_pictures:
        caution = (
            f"{kept}, and pictures of them are cut to [0, 1]; store values in [0, 1] if they are pixels, or set "
            "dataset.scale=1 to keep them so"
        )
    return Values("real", 1.0, torch.float32, f"{found}, as they are", caution)


def _by_scale(found: Range, scale: float) -> Values:
    low, high = found.low / scale, found.high / scale
    words = f"{found}, as they are" if scale == 1 else f"{found}, x = k / {scale:g}"
    is_byte = found.is_whole and found.low >= 0 and found.high <= BYTE
    if not (low >= 0 and high <= 1):
        return Values("real", scale, torch.float32, words)
    if found.is_binary and scale == 1:
        return Values("binary", 1.0, torch.uint8, words)
    if is_byte and scale == int(scale) and scale <= BYTE:
        is_binary = found.is_two_tone and scale == BYTE
        return Values("binary" if is_binary else "bytes" if scale == BYTE else "levels", scale, torch.uint8, words)
    return Values("unit", scale, torch.float32, words)


def _refuse_non_finite(part: np.ndarray, start: int, where: str) -> None:
    finite = np.isfinite(part)
    if not finite.all():
        row = int(np.argmin(finite.reshape(len(part), -1).all(1)))
        value = part[row][~finite[row]].flat[0]
        raise ValueError(f"expected finite numbers in {where}, got {value} (as float32) in row {start + row}")
