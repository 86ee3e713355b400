"""Curves for TensorBoard."""

from __future__ import annotations

from typing import Any

from vaebench.trainers.callbacks.tracker import Tracker, numbers
from vaebench.trainers.training import Training


class TensorBoard(Tracker):
    """Writes every row of metrics.jsonl as curves into the folder `tensorboard` of the run.

    A resumed run hides what was written after its checkpoint and goes on.
    """

    package = "tensorboard"

    def __init__(self) -> None:
        self._writer: Any = None

    def open(self, training: Training) -> None:
        """Open the event file."""
        from torch.utils.tensorboard import SummaryWriter

        assert training.run is not None
        self._writer = SummaryWriter(str(training.run.path / "tensorboard"), purge_step=training.step + 1)

    def write(self, training: Training, row: dict[str, Any]) -> None:
        """Add a point to each curve."""
        for name, value in numbers(row).items():
            self._writer.add_scalar(name, value, row["step"])

    def close(self, status: str) -> None:
        """Close the event file."""
        self._writer.close()
