"""Speed and memory."""

from __future__ import annotations

import sys
import time

import torch

from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.training import Training


class Throughput(Callback):
    """Logs examples and steps per second and the peak memory of each epoch, in rows with the split "resources".

    These are the only rows that differ between two runs of the same training.
    """

    def __init__(self) -> None:
        self._started = 0.0
        self._num_steps = self._num_examples = 0

    def on_train_start(self, training: Training) -> None:
        """Start the clock."""
        self._restart(training)

    def on_epoch_start(self, training: Training) -> None:
        """Start the clock, so that validation and pictures do not count."""
        self._restart(training)

    def on_step_end(self, training: Training) -> None:
        """Count."""
        self._num_steps += 1
        self._num_examples += training.num_rows

    def on_evaluation_start(self, training: Training) -> None:
        """Write the row; the device has been waited for by now."""
        self._write(training)

    def on_epoch_end(self, training: Training) -> None:
        """Write the row of an epoch without validation."""
        self._write(training)

    def _restart(self, training: Training) -> None:
        self._started = time.perf_counter()
        self._num_steps = self._num_examples = 0
        if training.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(training.device)

    def _write(self, training: Training) -> None:
        if self._num_steps == 0:
            return
        seconds = time.perf_counter() - self._started
        training.log(
            "resources",
            {
                "examples_per_second": self._num_examples / seconds,
                "steps_per_second": self._num_steps / seconds,
                "peak_memory_mib": peak_memory(training.device) / 2**20,
            },
        )
        self._num_steps = self._num_examples = 0


def peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU's allocator, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
