"""An end before the last epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from vaebench.messages import counted
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.callbacks.checkpoint import is_better, metric_of

if TYPE_CHECKING:
    from vaebench.trainers.training import Training


class EarlyStopping(Callback):
    """Ends training when `trainer.keep_best` has not improved for some validations.

    Args:
        patience: How many, >= 1.
        min_delta: An improvement is at least this large, >= 0.
    """

    on_every_rank: ClassVar[bool] = True

    def __init__(self, patience: int = 10, min_delta: float = 0.0) -> None:
        if patience < 1:
            raise ValueError(f"callback.early_stopping.patience must be at least 1, got {patience}")
        if min_delta < 0:
            raise ValueError(f"callback.early_stopping.min_delta must be at least 0, got {min_delta}")
        self.patience = patience
        self.min_delta = min_delta
        self.best: float | None = None
        self.num_waited = 0

    def check(self, training: Training) -> None:
        """Refuse options that give nothing to watch."""
        if training.trainer.validate_every is None or training.trainer.keep_best is None:
            raise ValueError("early stopping needs a metric: set trainer.validate_every and trainer.keep_best")

    def on_train_start(self, training: Training) -> None:
        """A run that was over stays over."""
        self._stop_if_over(training)

    def on_evaluation_end(self, training: Training, values: dict[str, float]) -> None:
        """Count."""
        name, mode = training.trainer.keep_best or "loss", training.trainer.keep_best_mode
        value = metric_of(values, name)
        sign = 1.0 if mode == "min" else -1.0
        if is_better(value, None if self.best is None else self.best - sign * self.min_delta, mode):
            self.best, self.num_waited = value, 0
        else:
            self.num_waited += 1
        self._stop_if_over(training)

    def _stop_if_over(self, training: Training) -> None:
        if self.num_waited >= self.patience:
            name = training.trainer.keep_best
            waited = counted(self.num_waited, "validation")
            training.stop(f"validation {name} has not improved on {self.best:.6g} for {waited}")

    def state_dict(self) -> dict[str, Any]:
        """Best value and count."""
        return {"best": self.best, "num_waited": self.num_waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.best, self.num_waited = state["best"], state["num_waited"]
