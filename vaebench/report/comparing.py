"""Which configurations differ: t-tests over seeds and over the same examples, corrected for their number."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vaebench.report.plain import MAX_NUMBER

LEVEL = 0.05  # family-wise: how often any of several equal configurations is ranked below the first
MOST_BYTES = 2**28  # per file of values


@dataclass(frozen=True)
class ExampleFile:
    """Where the values of single examples lie.

    Attributes:
        path: A safetensors file.
        sha256: What its content must hash to: a file that was replaced belongs to other numbers.
        name: Name of the values in it.
        data: Fingerprint of the examples, or None where the evaluation recorded none.
    """

    path: Path
    sha256: str
    name: str
    data: str | None = None

    def load(self) -> np.ndarray | None:
        """Return float64, shape (n,), or None where the file is missing, damaged, or another than was recorded."""
        values = _load(self.path, self.sha256).get(self.name)
        if values is None or values.ndim != 1 or values.dtype.kind != "f" or not np.isfinite(values).all():
            return None
        found = values.astype(np.float64)
        return found if found.size and np.abs(found).max() < MAX_NUMBER else None


def _load(path: Path, sha256: str) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MOST_BYTES:
            return {}
        content = path.read_bytes()
        return load(content) if hashlib.sha256(content).hexdigest() == sha256 else {}
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return {}


@dataclass(frozen=True)
class Measured:
    """One configuration's number, with all that is known of its error.

    Attributes:
        mean: Mean over seeds.
        num_seeds: Of how many.
        spread: Standard deviation over seeds (n - 1 in the denominator), or None for one seed.
        error: Standard error over examples, where there is one seed, or None.
        num_examples: Of how many examples, or None where nobody says.
        examples: The seeds' values of single examples, averaged, shape (n,), or None.
        data: Fingerprint of the examples, or None.
    """

    mean: float
    num_seeds: int
    spread: float | None
    error: float | None
    num_examples: int | None = None
    examples: np.ndarray | None = None
    data: str | None = None


@dataclass(frozen=True)
class Difference:
    """One configuration beside another.

    Attributes:
        value: The first's mean minus the second's.
        error: Its standard error, or None where nothing tells.
        dof: Degrees of freedom of the error.
        p: Two-sided probability of a difference as large as this between equal configurations; 1 where nothing tells.
        how: What the error is over.
    """

    value: float
    error: float | None
    dof: float
    p: float
    how: str


def difference(a: Measured, b: Measured) -> Difference:
    """Compare two configurations.

    The variance of the difference has a part from the seeds (Welch's; with a single seed on one side, the other side's
    spread is taken for both) and one from the examples (of the paired differences where both kept their values of the
    same examples). Degrees of freedom are Welch's and Satterthwaite's. Where both have one seed, only examples count:
    the weights differ, which does not say that training again would find the same.
    """
    parts: list[tuple[float, float]] = []  # (variance, degrees of freedom)
    words = []
    seeds = _over_seeds(a, b)
    if seeds:
        parts += seeds
        words.append(f"{a.num_seeds} and {b.num_seeds} seeds")
    paired = _paired(a, b)
    if paired is not None:
        n = len(paired)
        parts.append((float(paired.var(ddof=1)) / n, n - 1))
        words.append(f"{n} examples, paired")
    elif not seeds and a.error is not None and b.error is not None:
        for side in (a, b):
            parts.append((side.error**2, (side.num_examples or math.inf) - 1))  # type: ignore[operator]
        words.append("examples, not paired")
    value = a.mean - b.mean
    if not parts:
        return Difference(value, None, math.inf, 1.0, "nothing tells")
    variance = sum(part for part, _ in parts)
    spread = sum(part**2 / dof for part, dof in parts)
    dof = variance**2 / spread if spread > 0 else math.inf
    return Difference(value, math.sqrt(variance), dof, two_sided(value, math.sqrt(variance), dof), ", ".join(words))


def _over_seeds(a: Measured, b: Measured) -> list[tuple[float, float]]:
    if a.spread is None and b.spread is None:
        return []
    if a.spread is not None and b.spread is not None:
        return [(side.spread**2 / side.num_seeds, side.num_seeds - 1) for side in (a, b)]  # type: ignore[operator]
    known = a if a.spread is not None else b
    assert known.spread is not None
    return [(known.spread**2 * (1 / a.num_seeds + 1 / b.num_seeds), known.num_seeds - 1)]


def _paired(a: Measured, b: Measured) -> np.ndarray | None:
    """The differences of each example, where both measured the same ones."""
    if a.examples is None or b.examples is None or a.examples.shape != b.examples.shape or len(a.examples) < 2:
        return None
    return None if a.data != b.data else a.examples - b.examples


def two_sided(value: float, error: float, dof: float) -> float:
    """Return P(|T| >= |value / error|) for Student's t with `dof` degrees of freedom (the normal law for infinity)."""
    from scipy.special import ndtr, stdtr  # type: ignore[import-untyped]

    if error == 0:
        return 1.0 if value == 0 else 0.0
    t = -abs(value / error)
    return 2 * float(ndtr(t) if math.isinf(dof) else stdtr(dof, t))


def holm(p: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Say which of several hypotheses fall, so that one that is true falls with probability `level` (Holm, 1979).

    >>> holm([0.001, 0.04, 0.03])
    [True, False, False]
    """
    falls = [False] * len(p)
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[index] > level / (len(p) - rank):
            break
        falls[index] = True
    return falls


def ranks(measured: Sequence[Measured], better: str) -> list[int]:
    """Rank configurations: one more than the number of those that are clearly better.

    Clearly is at the level of the whole table: among equal configurations, the probability that any pair is told apart
    is at most `LEVEL`.

    Args:
        measured: One for each configuration.
        better: "higher" or "lower".
    """
    pairs = [(i, j) for i in range(len(measured)) for j in range(i)]
    found = [difference(measured[i], measured[j]) for i, j in pairs]
    result = [1] * len(measured)
    for (i, j), pair, falls in zip(pairs, found, holm([pair.p for pair in found]), strict=True):
        if falls:
            result[j if (pair.value > 0) == (better == "higher") else i] += 1
    return result
