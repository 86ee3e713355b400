"""Every number of an epoch as a line of the log."""

from __future__ import annotations

import logging
from typing import Any

from vaebench.messages import check_range
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.training import Training

log = logging.getLogger(__name__)


class MetricConsolePrinterCallback(Callback):
    """Prints the rows of metrics.jsonl as they are written.

    Args:
        every_epochs: Epochs between printed ones, >= 1; the last is always printed.
    """

    def __init__(self, every_epochs: int = 1) -> None:
        check_range("every_epochs", every_epochs, at_least=1, whole=True)
        self.every_epochs = every_epochs

    def on_log(self, training: Training, row: dict[str, Any]) -> None:
        """Print the row if its epoch's turn has come."""
        is_last = training.step >= training.num_steps
        if row["epoch"] % self.every_epochs and not is_last:
            return
        values = (f"{name} {value:.6g}" for name, value in row.items() if isinstance(value, float))
        log.info("epoch %d, step %d, %s: %s", row["epoch"], row["step"], row["split"], ", ".join(values))
