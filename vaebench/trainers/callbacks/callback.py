"""Behaviour around the training loop."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from vaebench.messages import NamedArguments
from vaebench.trainers.training import Training


class Callback(NamedArguments):
    """Base of the callbacks: every hook does nothing.

    Hooks may read everything on `training`, and call `training.log` and `training.stop`. What they draw at random must
    be drawn inside `vaebench.hardware.random_streams.fixed_rng`, so that a run does not depend on who watches it.

    Attributes:
        on_every_rank: Whether the hooks also run on processes that do not write.
        outward: Settings that lead away from this machine, each with the values that do not. A stored configuration's
            own are not used unless the user names them again.
    """

    on_every_rank: ClassVar[bool] = False
    outward: ClassVar[Mapping[str, Collection[Any]]] = {}

    def check(self, training: Training) -> None:
        """Refuse what cannot work, before anything is written; unlike the hooks on every process."""

    def on_train_start(self, training: Training) -> None:
        """Before the first step; a checkpoint is loaded already."""

    def on_train_end(self, training: Training) -> None:
        """After the last step."""

    def on_epoch_start(self, training: Training) -> None:
        """Before the first step of an epoch; not repeated when training resumes in its middle."""

    def on_epoch_end(self, training: Training) -> None:
        """After an epoch, its validation and its log rows."""

    def on_step_start(self, training: Training) -> None:
        """Before a step."""

    def on_step_end(self, training: Training) -> None:
        """After a step; reading a value of the device here makes every step wait for it."""

    def on_evaluation_start(self, training: Training) -> None:
        """Before a validation, in training weights."""

    def on_evaluation_end(self, training: Training, values: dict[str, float]) -> None:
        """After a validation.

        Args:
            training: The training.
            values: Means over the validation split.
        """

    def on_log(self, training: Training, row: dict[str, Any]) -> None:
        """When a row of metrics.jsonl is written: step, epoch, split, values."""

    def on_progress(self, training: Training, name: str, done: int, total: int) -> None:
        """During validation and other long work between two steps.

        Args:
            training: The training.
            name: What is done.
            done: How much of it: batches of a validation, examples that were read elsewhere.
            total: Of how much.
        """

    def on_save(self, training: Training) -> None:
        """While a checkpoint is written, before the one rename that makes it count."""

    def on_exception(self, training: Training, error: BaseException) -> None:
        """When an error or an interruption ends the training."""

    def state_dict(self) -> dict[str, Any]:
        """State to keep across a restart: plain values and tensors."""
        return {}

    def expected_state(self, training: Training) -> dict[str, Any]:
        """The form of `state_dict()` once training has begun: a checkpoint of another form is refused.

        Numbers stand for any numbers, tensors for tensors of their shape and type, None and empty containers for
        numbers, names or scalars that come later.
        """
        return self.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""


HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_") and name != "on_every_rank")
