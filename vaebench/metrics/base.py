"""The base of the metrics: numbers about a model with standard errors, or the reason why there are none."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from vaebench.core import Split
from vaebench.messages import NamedArguments, counted
from vaebench.metrics.subject import NotApplicableError, Subject

__all__ = ["Estimate", "Metric", "NotApplicableError", "Result", "Subject"]


@dataclass(frozen=True)
class Estimate:
    """One number.

    Attributes:
        value: The estimate.
        standard_error: Its standard error over the examples, or None where n examples cannot tell.
        n: How many examples it is made of.
        unit: Unit of both.
        better: "higher", "lower", or None where neither is.
        per_example: What the value is the mean of, float64, shape (n,), in the order of the examples, where it is one:
            with it two models are compared example by example.
    """

    value: float
    standard_error: float | None
    n: int
    unit: str
    better: str | None = None
    per_example: Tensor | None = field(default=None, repr=False, compare=False)

    @classmethod
    def mean(cls, per_example: Tensor, unit: str, better: str | None = None) -> Estimate:
        """Average independent examples: the standard error is s / sqrt(n), s with n - 1 in the denominator.

        Args:
            per_example: Shape (N,); computed in float64.
            unit: Unit of the values.
            better: As in the class.

        Raises:
            FloatingPointError: a value is not finite.
        """
        values = per_example.detach().double().flatten()
        n, num_bad = len(values), int((~values.isfinite()).sum())
        if num_bad:
            raise FloatingPointError(f"the value ({unit}) is not finite for {num_bad} of {counted(n, 'example')}")
        error = values.std().item() / math.sqrt(n) if n > 1 else None
        return cls(values.mean().item(), error, n, unit, better, values.cpu())

    @classmethod
    def jackknife(
        cls, value: float, leaving_out: Sequence[float], n: int, unit: str, better: str | None = None
    ) -> Estimate:
        """Give a statistic of all examples the standard error of the delete-a-group jackknife (Quenouille, 1956).

        Args:
            value: The statistic of all examples.
            leaving_out: The statistic with each of G groups of examples left out.
            n: How many examples there are.
            unit: Unit of the value.
            better: As in the class.
        """
        values = torch.tensor(leaving_out, dtype=torch.float64)
        groups = len(values)
        error = (
            math.sqrt((groups - 1) / groups * float((values - values.mean()).square().sum())) if groups > 1 else None
        )
        return cls(value, error, n, unit, better)

    def as_json(self) -> dict[str, Any]:
        """All but the values of single examples."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "per_example"}


@dataclass(frozen=True)
class Result:
    """The result of a metric.

    Attributes:
        values: Named estimates; the names carry units.
        how: How they were estimated, one line.
        details: What else a reader of the file may want, as plain JSON values.
    """

    values: dict[str, Estimate]
    how: str
    details: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        values = {name: estimate.as_json() for name, estimate in self.values.items()}
        return {"values": values, "how": self.how, "details": self.details}

    def per_example(self) -> dict[str, Tensor]:
        """The values of single examples under the estimates' names, float32, shape (n,) each."""
        found = {name: estimate.per_example for name, estimate in self.values.items()}
        return {name: values.float() for name, values in found.items() if values is not None}


class Metric(NamedArguments, ABC):
    """Base of the metrics; a metric sets `needs` and `measure`.

    Attributes:
        needs: What it cannot do without: capabilities of the model (`core.CAPABILITIES`), "labels", "factors", "images"
            (`subject.DATA_NEEDS`), "samples" and "code_prior". Where one is missing, the metric is skipped with the
            reason.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def why_not(self, subject: Subject) -> str | None:
        """Say why the metric has no meaning for `subject`, or None where it has."""
        reasons = (subject.reason_against(need) for need in sorted(self.needs))
        return next((reason for reason in reasons if reason is not None), None)

    @abstractmethod
    def measure(self, subject: Subject) -> Result:
        """Compute the metric.

        Args:
            subject: A model in eval mode, without gradients, and the examples.
        """

    def __call__(
        self,
        model: Any,
        split: Split,
        *,
        seed: int = 0,
        **options: Any,
    ) -> Result:
        """Evaluate a model: in eval mode, with noise from `seed`; the caller's mode and generators stay as they were.

        Args:
            model: A trained model.
            split: The examples.
            seed: Seed of the noise.
            **options: Of `Subject`: dataset, batch_size, extractor, draw, source, code_prior, advance.

        Raises:
            NotApplicableError: the metric has no meaning here.
            ValueError: there are no examples, or batch_size < 1.
            FloatingPointError: a value is not finite.
        """
        subject = Subject(model, split, **options)
        reason = self.why_not(subject)
        if reason is not None:
            raise NotApplicableError(reason)
        with torch.no_grad(), _eval_mode(model), _seeded(seed, subject.device):
            return self.measure(subject)


@contextmanager
def _eval_mode(model: Any) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
