"""What every metric is: a pass over examples that ends in numbers with standard errors, or a reason why not."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from vaebench.core import Batch, Split
from vaebench.messages import counted


class NotApplicableError(ValueError):
    """The metric has no meaning for this model or these data; the text is the reason."""


@dataclass(frozen=True)
class Estimate:
    """One number.

    Attributes:
        value: The estimate.
        standard_error: Its standard error over the examples, or None where n examples cannot tell.
        n: How many examples it is made of.
        unit: Unit of both.
        better: "higher", "lower", or None where neither is.
    """

    value: float
    standard_error: float | None
    n: int
    unit: str
    better: str | None = None

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
        return cls(values.mean().item(), error, n, unit, better)


@dataclass(frozen=True)
class Result:
    """What a metric found.

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
        values = {name: asdict(estimate) for name, estimate in self.values.items()}
        return {"values": values, "how": self.how, "details": self.details}


class Metric(ABC):
    """Base of the metrics; a metric sets `needs` and `measure`.

    Attributes:
        needs: Capabilities that the model must have.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def why_not(self, model: Any) -> str | None:
        """Say why the metric has no meaning for `model`, or None where it has."""
        missing = sorted(self.needs - model.capabilities)
        if not missing:
            return None
        return f"{type(model).__name__} has no {missing[0]}: {model.reason_against(missing[0])}"

    @abstractmethod
    def measure(self, model: Any, batches: Iterator[Batch]) -> Result:
        """Compute the metric from one pass over the examples.

        Args:
            model: In eval mode, without gradients.
            batches: The examples, in order, on the model's device.
        """

    def __call__(
        self,
        model: Any,
        split: Split,
        *,
        batch_size: int = 100,
        seed: int = 0,
        advance: Callable[[int], object] = lambda examples: None,
    ) -> Result:
        """Evaluate a model: in eval mode, with noise from `seed`; the caller's mode and generators stay as they were.

        Args:
            model: A trained model.
            split: The examples.
            batch_size: Examples at a time, >= 1.
            seed: Seed of the noise.
            advance: Called with the number of examples whenever some are done.

        Raises:
            NotApplicableError: the metric has no meaning here.
            ValueError: there are no examples, or batch_size < 1.
            FloatingPointError: a value is not finite.
        """
        reason = self.why_not(model)
        if reason is not None:
            raise NotApplicableError(reason)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if len(split) == 0:
            raise ValueError("split: expected at least one example to evaluate, got an empty split")
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        with torch.no_grad(), _eval_mode(model), _seeded(seed, device):
            return self.measure(model, _batches(split, batch_size, device, advance))


def _batches(split: Split, size: int, device: torch.device, advance: Callable[[int], object]) -> Iterator[Batch]:
    for rows in torch.arange(len(split)).split(size):
        yield split.batch(rows).to(device)
        advance(len(rows))


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
