"""Examples with their labels, and how a pool of them falls into training, validation and test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vaebench.data.io.source import Source

SPLIT_SEED = 0


@dataclass(frozen=True)
class Examples:
    """Stored examples.

    Attributes:
        x: Shape (N, *shape), or a `Source` of N examples.
        y: Labels, int64, shape (N,), or contexts in their place, float32, shape (N, ...); or None.
        context: What a model is told about each example, float32, shape (N, ...), or None.
        factors: Ground-truth factors of variation, int64, shape (N, F), or None.
    """

    x: Tensor | Source
    y: Tensor | None = None
    context: Tensor | None = None
    factors: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.x.shape[1:]) if isinstance(self.x, Tensor) else self.x.shape

    def take(self, indices: Tensor) -> Examples:
        """Return the examples at `indices`, in that order."""
        x = self.x[indices] if isinstance(self.x, Tensor) else self.x.take(indices)
        y, context, factors = (
            None if field is None else field[indices] for field in (self.y, self.context, self.factors)
        )
        return Examples(x, y, context, factors)


def unseen_classes(parts: Mapping[str, Examples]) -> str:
    """Caution of classes that a part has and the training examples have not; "" where there are none, or no labels.

    Args:
        parts: Name -> examples, as the data come: where they are one pool, its parts come from the same classes.
    """
    labels = {part: examples.y for part, examples in parts.items()}
    known = labels.get("train")
    if known is None or known.is_floating_point():
        return ""
    for part, y in labels.items():
        unseen = set() if y is None else set(y.unique().tolist()) - set(known.unique().tolist())
        if unseen:
            return (
                f"{len(unseen)} of the classes of the {part} examples never occur among the training examples: a model "
                "that is told the class has not seen them"
            )
    return ""


def shuffled(n: int) -> Tensor:
    """Return a permutation of range(n), shape (n,): the same on every machine and in every version."""
    # NumPy guarantees that RandomState's stream never changes; torch.randperm and numpy's Generator may change.
    return torch.from_numpy(np.random.RandomState(SPLIT_SEED).permutation(n)).to(torch.int64)


def hold_out(pool: Examples, *, num_validation: int, num_test: int | None = None) -> list[Examples]:
    """Shuffle with the fixed seed; the last are the test examples, those before them validate, the rest train.

    Args:
        pool: All examples.
        num_validation: How many validate.
        num_test: How many test; None where the data set brings its own test examples.

    Returns:
        Training, validation, and (unless `num_test` is None) test examples.

    Raises:
        ValueError: No example is left for training, or a number is negative.
    """
    check_count("dataset.num_validation", num_validation, most=len(pool) - 1)
    if num_test is not None:
        check_count("dataset.num_test", num_test, most=len(pool) - 1 - num_validation)
    order = shuffled(len(pool))
    stop = len(pool) - (num_test or 0)
    parts = [order[: stop - num_validation], order[stop - num_validation : stop]]
    if num_test is not None:
        parts.append(order[stop:])
    return [pool.take(part) for part in parts]


def fill_parts(
    parts: dict[str, Examples], *, validation_fraction: float, test_fraction: float, where: str
) -> list[Examples]:
    """Return training, validation and test examples, where a user's own data may bring some of them or none.

    Args:
        parts: "train", and "validation" and "test" where the data bring them.
        validation_fraction: Share of "train" to validate with, where the data have no validation part.
        test_fraction: Share of "train" to test with, where the data have no test part.
        where: What the data are, for messages.

    Raises:
        ValueError: A share is out of range, or too few examples for three parts.
    """
    counts = {"validation": 0, "test": 0}
    for part, fraction in (("validation", validation_fraction), ("test", test_fraction)):
        is_number = isinstance(fraction, (int, float)) and not isinstance(fraction, bool)
        if not is_number or not 0 <= fraction < 1:
            raise ValueError(f"expected dataset.{part}_fraction from 0 to below 1, got {fraction!r}")
        if part not in parts and fraction > 0:
            counts[part] = max(1, round(fraction * len(parts["train"])))
    if sum(counts.values()) >= len(parts["train"]):
        raise ValueError(
            f"expected enough examples in {where} for training beside {counts['validation']} to validate and "
            f"{counts['test']} to test, got {len(parts['train'])}; lower dataset.validation_fraction or "
            "dataset.test_fraction"
        )
    train, validation, test = hold_out(parts["train"], num_validation=counts["validation"], num_test=counts["test"])
    return [train, parts.get("validation", validation), parts.get("test", test)]


def check_count(key: str, value: int, *, most: int, least: int = 0) -> None:
    """Refuse a number of examples that the data cannot give.

    Raises:
        ValueError: `value` is not a whole number from `least` to `most`.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected {key} to be a whole number, got {value!r}")
    if not least <= value <= most:
        raise ValueError(f"expected {key} from {least} to {most}, so that training keeps an example, got {value}")
