"""Weights and state on disk."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from torch import Tensor

from vaebench.messages import did_you_mean
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.state import save_weights
from vaebench.trainers.trainer import check_positive

if TYPE_CHECKING:
    from vaebench.trainers.training import Training


class Checkpoint(Callback):
    """Saves the training, and the best weights by `trainer.keep_best`.

    A checkpoint is written at the start, at the end, when a signal comes, and at the first step after every so many
    seconds: training continues exactly from any step, so time is what a crash costs. The best weights are written
    with the checkpoint that knows of them.

    Args:
        every_seconds: Time between checkpoints, >= 0; 0 saves after every epoch.
    """

    def __init__(self, every_seconds: float = 30.0) -> None:
        if every_seconds != 0:
            check_positive(every_seconds, "callback.checkpoint.every_seconds")
        self.every_seconds = every_seconds
        self._best_weights: dict[str, Tensor] | None = None
        self._saved_at = 0.0

    def check(self, training: Training) -> None:
        """Refuse a metric that validation does not give."""
        name = training.trainer.keep_best
        if name not in (None, "loss") and training.trainer.validate_every is not None:
            metric_of(training.validation_means(num_batches=1), name)

    def on_train_start(self, training: Training) -> None:
        """Find out whether the disk takes a checkpoint."""
        training.save()

    def on_step_end(self, training: Training) -> None:
        """Save if it is time."""
        if self.every_seconds > 0 and time.monotonic() - self._saved_at > self.every_seconds:
            training.save()

    def on_evaluation_end(self, training: Training, values: dict[str, float]) -> None:
        """Remember the best weights."""
        name = training.trainer.keep_best
        if name is None:
            return
        value = metric_of(values, name)
        if is_better(value, training.best, training.trainer.keep_best_mode):
            training.best = value
            if training.run is not None:
                self._best_weights = training.weights()

    def on_epoch_end(self, training: Training) -> None:
        """Save if it is time."""
        if time.monotonic() - self._saved_at > self.every_seconds:
            training.save()

    def on_train_end(self, training: Training) -> None:
        """Save the end."""
        training.save()

    def on_save(self, training: Training) -> None:
        """Write the best weights if they are newer than the file; whoever saves, the clock starts again."""
        self._saved_at = time.monotonic()
        if self._best_weights is not None and training.run is not None:
            save_weights(training.run.best_weights, self._best_weights)
            self._best_weights = None


def metric_of(values: dict[str, float], name: str) -> float:
    """Return a validation metric.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in values:
        raise ValueError(f"trainer.keep_best: validation gives no '{name}'{did_you_mean(name, values)}")
    return values[name]


def is_better(value: float, best: float | None, mode: str) -> bool:
    """Whether a value is finite and an improvement."""
    if value != value or abs(value) == float("inf"):
        return False
    return best is None or (value < best if mode == "min" else value > best)
