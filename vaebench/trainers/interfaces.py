"""The interfaces between a training and its update rule, its callbacks and its averaged weights."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol, TypeVar

from torch import Tensor

from vaebench.core import Batch, Loss

T = TypeVar("T", contravariant=True)  # the training


class UpdateRule(Protocol[T]):
    """The update of a trainer from one batch."""

    name: ClassVar[str]

    def carry(self, model: Any, device: Any) -> dict[str, Tensor]:
        """Return the tensors that are kept from step to step, as they are before the first one."""
        ...

    def train_step(self, training: T, batch: Batch) -> dict[str, Tensor]:
        """Update the weights once; return detached scalars for the logs, means over `batch`."""
        ...

    def eval_step(self, training: T, batch: Batch) -> Loss:
        """Return the validation loss of one batch."""
        ...


class Observer(Protocol[T]):
    """Who watches a training: its callbacks as one."""

    callbacks: list[Any]

    def check(self, training: T) -> None:
        """Refuse what cannot work, before anything is written."""
        ...

    def call(self, training: T, hook: str, *arguments: Any) -> None:
        """Call one hook of every callback."""
        ...

    def report_error(self, training: T, error: BaseException) -> None:
        """Pass on the error or the interruption that ends the training."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The state of the callbacks."""
        ...

    def expected_state(self, training: T) -> dict[str, Any]:
        """The state that the callbacks would have once training has begun, to compare a checkpoint with."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        ...


class Average(Protocol):
    """Averaged weights."""

    def update(self) -> None:
        """Follow the weights by one step."""
        ...

    def swapped(self) -> AbstractContextManager[None]:
        """Context in which the model computes with the averages."""
        ...
