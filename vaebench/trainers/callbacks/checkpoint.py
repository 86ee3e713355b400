"""Weights and state on disk."""

from __future__ import annotations

import time

from torch import Tensor

from vaebench.messages import check_range, did_you_mean
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.state import save_weights
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
        check_range("every_seconds", every_seconds, at_least=0, below=float("inf"))
        self.every_seconds = every_seconds
        self._best_weights: dict[str, Tensor] | None = None
        self._saved_at = 0.0

    def check(self, training: Training) -> None:
        """Refuse a metric that validation does not give."""
        if training.best_by is not None and training.best_by[0] != "loss":
            metric_of(training.validation_means(num_batches=1), training.best_by[0])

    def on_train_start(self, training: Training) -> None:
        """Fail early if a checkpoint cannot be written."""
        training.save()

    def on_step_end(self, training: Training) -> None:
        """Save if it is time."""
        if self.every_seconds > 0 and time.monotonic() - self._saved_at > self.every_seconds:
            training.save()

    def on_evaluation_end(self, training: Training, values: dict[str, float]) -> None:
        """Remember the best weights."""
        if training.best_by is None:
            return
        name, mode = training.best_by
        value = metric_of(values, name)
        if is_better(value, training.best, mode):
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
