"""An end before the last epoch."""

from __future__ import annotations

from typing import Any, ClassVar

from vaebench.messages import check_range, counted
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.callbacks.checkpoint import is_better, metric_of
from vaebench.trainers.training import Training


class EarlyStopping(Callback):
    """Ends training when `trainer.keep_best` has not improved for some validations.

    Args:
        patience: How many, >= 1.
        min_delta: An improvement is at least this large, >= 0.
    """

    on_every_rank: ClassVar[bool] = True

    def __init__(self, patience: int = 10, min_delta: float = 0.0) -> None:
        check_range("patience", patience, at_least=1, whole=True)
        check_range("min_delta", min_delta, at_least=0, below=float("inf"))
        self.patience = patience
        self.min_delta = min_delta
        self.best: float | None = None
        self.num_waited = 0

    def check(self, training: Training) -> None:
        """Refuse options that give nothing to watch."""
        if training.best_by is None:
            raise ValueError(
                f"early stopping needs a metric: set trainer.validate_every, and trainer.keep_best to a validation "
                f"metric of {type(training.model).__name__}"
            )

    def on_train_start(self, training: Training) -> None:
        """A run that was over stays over."""
        self._stop_if_over(training)

    def on_evaluation_end(self, training: Training, values: dict[str, float]) -> None:
        """Count."""
        name, mode = training.best_by or ("loss", "min")
        value = metric_of(values, name)
        sign = 1.0 if mode == "min" else -1.0
        if is_better(value, None if self.best is None else self.best - sign * self.min_delta, mode):
            self.best, self.num_waited = value, 0
        else:
            self.num_waited += 1
        self._stop_if_over(training)

    def _stop_if_over(self, training: Training) -> None:
        if self.num_waited >= self.patience:
            name = (training.best_by or ("loss", "min"))[0]
            waited = counted(self.num_waited, "validation")
            training.stop(f"validation {name} has not improved on {self.best:.6g} for {waited}")

    def state_dict(self) -> dict[str, Any]:
        """Best value and count."""
        return {"best": self.best, "num_waited": self.num_waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.best, self.num_waited = state["best"], state["num_waited"]
