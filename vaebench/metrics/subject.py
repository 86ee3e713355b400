"""The subject of a metric: a trained model, examples, its samples, and the features that samples are compared by."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from vaebench.core import CAPABILITIES, Batch, Split
from vaebench.data.split import DataSplit
from vaebench.messages import check_range
from vaebench.metrics.extractors.pixels import Pixels

DATA_NEEDS: Mapping[str, str] = MappingProxyType(
    {
        "labels": "the examples have no labels",
        "factors": "the examples come without their ground-truth factors of variation",
        "images": "the examples are vectors, not images",
    }
)
"""What a metric can need of the data, each with the reason that is given where it is missing."""

PRIOR = "prior"
NO_CODE_PRIOR = (
    "there is no prior over its codes yet; fit one with vaebench sample sampler=pixelcnn, and evaluate samples=pixelcnn"
)


class NotApplicableError(ValueError):
    """The metric has no meaning for this model or these data; the text is the reason."""


@dataclass(frozen=True)
class Codes:
    """Examples as the model encodes them.

    Attributes:
        z: Means of q(z|x), float64, on the CPU, shape (N, D).
        y: Labels, shape (N,), or None.
        factors: Ground-truth factors, int64, shape (N, F), or None.
    """

    z: Tensor
    y: Tensor | None = None
    factors: Tensor | None = None

    def __len__(self) -> int:
        return len(self.z)


class Subject:
    """A model beside the examples on which it is judged.

    Attributes:
        model: The trained model, in eval mode while a metric measures.
        split: The examples.
        dataset: The data set that they are part of, or None.
        extractor: Turns images into features: (B, *shape) to (B, F).
        source: What `samples` draws from, for messages.
        code_prior: A fitted sampler that gives log_prob of codes' vectors, (N, D, h, w) -> nats (N,), or None.

    Args:
        model: As above.
        split: As above.
        dataset: As above.
        batch_size: Examples at a time, >= 1.
        extractor: As above; the pixels themselves by default.
        draw: Gives decoded samples, n -> (n, *shape); the model's own prior by default.
        source: As above.
        code_prior: As above.
        advance: Called with the number of examples whenever some are done.
    """

    def __init__(
        self,
        model: Any,
        split: Split,
        *,
        dataset: Any = None,
        batch_size: int = 100,
        extractor: Any = None,
        draw: Callable[[int], Tensor] | None = None,
        source: str = "the prior",
        code_prior: Any = None,
        advance: Callable[[int], object] = lambda examples: None,
    ) -> None:
        check_range("batch_size", batch_size, at_least=1, whole=True)
        if len(split) == 0:
            raise ValueError("split: expected at least one example to evaluate, got an empty split")
        is_double = any(parameter.dtype == torch.float64 for parameter in model.parameters())
        if is_double and isinstance(split, DataSplit):
            split = split.to(split.device, torch.float64)
        self.model, self.split, self.dataset = model, split, dataset
        self.batch_size, self.extractor, self.source = batch_size, extractor or Pixels(), source
        self.code_prior = code_prior
        self._draw, self._advance = draw, advance

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def on(self, split: Split) -> Subject:
        """Return the same model beside other examples, such as those that it was trained on."""
        other = copy.copy(self)
        other.split, other._advance = split, lambda examples: None
        return other

    def batches(self) -> Iterator[Batch]:
        """Yield the examples in order, `batch_size` at a time, on the model's device."""
        for rows in torch.arange(len(self.split)).split(self.batch_size):
            yield self.split.batch(rows).to(self.device)
            self._advance(len(rows))

    def samples(self, num_samples: int) -> Tensor:
        """Return decoded samples, the means of p(x|z), shape (num_samples, *shape), on the CPU.

        Raises:
            NotApplicableError: the model has nothing to draw from, or there are fewer stored samples.
        """
        check_range("num_samples", num_samples, at_least=1, whole=True)
        if self._draw is not None:
            return self._draw(num_samples).cpu()
        reason = self.reason_against("samples")
        if reason is not None:
            raise NotApplicableError(reason)
        parts = []
        for start in range(0, num_samples, self.batch_size):
            size = min(self.batch_size, num_samples - start)
            parts.append(self.model.sample(size, y=self.model.draw_labels(size)).float().cpu())
        return torch.cat(parts)

    def codes(self) -> Codes:
        """Encode every example.

        Raises:
            FloatingPointError: a mean is not finite.
        """
        z, fields = [], []
        for batch in self.batches():
            z.append(self.model.posterior(batch.x, batch.y).mean.flatten(1).double().cpu())
            fields.append((batch.y, batch.factors))
        means = torch.cat(z)
        if not bool(means.isfinite().all()):
            raise FloatingPointError("the posterior's mean is not finite for some examples")
        y, factors = (None if part[0] is None else torch.cat(part).cpu() for part in zip(*fields, strict=True))
        return Codes(means, y, factors)

    def features(self, x: Tensor) -> Tensor:
        """Extract features, float64, on the CPU, shape (N, F), a batch at a time."""
        return torch.cat([self.extractor(part.to(self.device)).double().cpu() for part in x.split(self.batch_size)])

    def reason_against(self, need: str) -> str | None:
        """Say why a need of a metric is not met, or None where it is.

        Args:
            need: A capability of the model, one of `DATA_NEEDS`, "samples", or "code_prior".
        """
        if need == "code_prior":
            reason = self.reason_against("codes")
            return NO_CODE_PRIOR if reason is None and self.code_prior is None else reason
        if need == "samples":
            lacking = [] if self._draw is not None else ["prior", "likelihood"]
            reasons = (self.reason_against(capability) for capability in lacking)
            return next((reason for reason in reasons if reason is not None), None)
        if need in DATA_NEEDS:
            return None if self._has(need) else DATA_NEEDS[need]
        if need not in CAPABILITIES:
            raise KeyError(f"'{need}' is nothing that a metric can need")
        reason = self.model.reason_against(need)
        return None if reason is None else f"{type(self.model).__name__} has no {need}: {reason}"

    def _has(self, need: str) -> bool:
        first = self.split.batch(torch.zeros(1, dtype=torch.int64))
        if need == "images":
            return first.x.ndim == 4
        if need == "labels":
            return first.y is not None and not first.y.is_floating_point()  # y may hold continuous contexts instead
        return first.factors is not None
