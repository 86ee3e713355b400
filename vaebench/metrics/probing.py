"""Codes of the other splits, for metrics that fit something before they judge."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vaebench.metrics.base import NotApplicableError
from vaebench.metrics.subject import Codes, Subject


def labelled(subject: Subject, part: str) -> Codes:
    """Encode a split of the subject's data set.

    Raises:
        NotApplicableError: the subject has no data set, or the split is empty.
    """
    split = getattr(subject.dataset, part, None)
    if split is None or len(split) == 0:
        raise NotApplicableError(f"it is fitted to the {part} split, which is not there")
    return subject.on(split).codes()


def standardized(reference: Tensor, *others: Tensor) -> list[Any]:
    """Scale codes by mean and standard deviation of the first, shape (N, D) each; a code that does not vary stays."""
    mean, deviation = reference.mean(0), reference.std(0)
    deviation = deviation.where(deviation > 0, deviation.new_ones(()))
    return [((z - mean) / deviation).numpy() for z in (reference, *others)]
