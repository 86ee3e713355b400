"""The base of the trackers, which send the rows of metrics.jsonl to a program that shows them."""

from __future__ import annotations

import importlib.util
import math
from abc import abstractmethod
from typing import Any, ClassVar

from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.training import Training


class Tracker(Callback):
    """Base of the trackers. metrics.jsonl stays the record of truth; a tracker only shows it.

    Attributes:
        package: What must be installed.
    """

    package: ClassVar[str]
    _is_open = False

    def check(self, training: Training) -> None:
        """Refuse to go on without the package."""
        found = importlib.util.find_spec(self.package)
        if found is None or found.origin is None:  # a folder of that name, such as its own output, is not the package
            raise ValueError(
                f"callback={self.package} needs the package '{self.package}', which is not installed; "
                f"pip install 'vaebench[trackers]'"
            )

    def on_train_start(self, training: Training) -> None:
        """Open the tracker."""
        if training.run is not None:
            self.open(training)
            self._is_open = True

    def on_log(self, training: Training, row: dict[str, Any]) -> None:
        """Pass the row on."""
        if self._is_open:
            self.write(training, row)

    def on_train_end(self, training: Training) -> None:
        """Close the tracker."""
        self._close("done")

    def on_exception(self, training: Training, error: BaseException) -> None:
        """Close the tracker, and say how the training ended."""
        self._close("failed" if isinstance(error, Exception) else "interrupted")

    def _close(self, status: str) -> None:
        if self._is_open:
            self._is_open = False
            self.close(status)

    @abstractmethod
    def open(self, training: Training) -> None:
        """Start to write."""

    @abstractmethod
    def write(self, training: Training, row: dict[str, Any]) -> None:
        """Write one row."""

    @abstractmethod
    def close(self, status: str) -> None:
        """Write what is left; `status` is done, interrupted or failed."""


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """The finite values of a row under names such as "train/loss"."""
    return {
        f"{row['split']}/{name}": float(value)
        for name, value in row.items()
        if name not in ("step", "epoch", "split") and isinstance(value, (int, float)) and math.isfinite(value)
    }


def options(training: Training) -> dict[str, Any]:
    """The settings that distinguish the run from others, flat."""
    found = training.fingerprint()
    del found["model parameters"]
    return found
