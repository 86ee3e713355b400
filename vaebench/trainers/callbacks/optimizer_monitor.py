"""Learning rates and gradient norms."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.training import Training


class OptimizerMonitor(Callback):
    """Logs, for each part and epoch, the learning rate that comes next, and mean and largest gradient norm.

    The rows have the split "optimizer". Norms are those before clipping of the steps that were taken, gathered on the
    device and read once an epoch.
    """

    on_every_rank: ClassVar[bool] = True  # all processes must agree to measure norms

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._largest: dict[str, Tensor] = {}
        self._nums: dict[str, int] = {}

    def on_train_start(self, training: Training) -> None:
        """Have the norms measured."""
        training.updates.measure_gradient_norm = True
        for values in (self._sums, self._largest):
            values.update({name: value.to(training.device) for name, value in values.items()})

    def on_step_end(self, training: Training) -> None:
        """Add the step's norms."""
        for name, part in training.parts.items():
            norm = part.gradient_norm
            if norm is None:
                continue
            self._nums[name] = self._nums.get(name, 0) + 1
            self._sums[name] = self._sums[name] + norm if name in self._sums else norm
            self._largest[name] = norm.maximum(self._largest[name]) if name in self._largest else norm

    def on_epoch_end(self, training: Training) -> None:
        """Write the epoch's row."""
        values: dict[str, float] = {}
        for name, part in training.parts.items():
            prefix = "" if len(training.parts) == 1 else f"{name}_"
            values[f"{prefix}learning_rate"] = part.schedule.learning_rate
            if name in self._sums:
                values[f"{prefix}gradient_norm"] = float(self._sums[name]) / self._nums[name]
                values[f"{prefix}largest_gradient_norm"] = float(self._largest[name])
        self._sums, self._largest, self._nums = {}, {}, {}
        if training.is_main:
            training.log("optimizer", values)

    def state_dict(self) -> dict[str, Any]:
        """The epoch's sums so far."""
        return {"sums": dict(self._sums), "largest": dict(self._largest), "nums": dict(self._nums)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self._sums, self._largest = dict(state["sums"]), dict(state["largest"])
        self._nums = dict(state["nums"])
