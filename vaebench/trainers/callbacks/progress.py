"""How far the training is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any

from vaebench.messages import check_range
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.training import Training

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress as Bar
    from rich.progress import ProgressColumn


log = logging.getLogger(__name__)
PATIENCE = 2.0  # seconds without output before a step is announced


class ProgressBarCallback(Callback):
    """Shows progress: one log line now and then, and a live bar beneath them where stderr is a terminal.

    The bar is moved by the clock, not by the device: no step waits for it.

    Args:
        every_seconds: Time between log lines, > 0; the first and last epochs always get one.
        bar: Whether to show a bar; null: on a terminal.
    """

    def __init__(self, every_seconds: float = 10.0, bar: bool | None = None) -> None:
        check_range("every_seconds", every_seconds, above=0, below=float("inf"))
        self.every_seconds = every_seconds
        self.bar = bar
        self._bar: Bar | None = None
        self._told_at = 0.0
        self._drawn_at = 0.0
        self._work: tuple[str, float] = ("", 0.0)
        self._is_first = True
        self._streams: list[tuple[Any, Any]] = []

    def on_train_start(self, training: Training) -> None:
        """Open the bar."""
        self._told_at = time.monotonic()
        if self.bar if self.bar is not None else is_interactive():
            self._bar = self._open(training)

    def on_step_end(self, training: Training) -> None:
        """Move the bar ten times a second, and speak up during long epochs."""
        now = time.monotonic()
        if self._bar is not None and now - self._drawn_at > 0.1:
            self._drawn_at = now
            self._bar.update(self._bar.task_ids[0], completed=training.step, epoch=training.epoch + 1)
        if now - self._told_at > self.every_seconds:
            self._told_at = now
            log.info("epoch %d, step %d of %d", training.epoch + 1, training.step, training.num_steps)

    def on_progress(self, training: Training, name: str, done: int, total: int) -> None:
        """Show work between two steps once it has lasted two seconds."""
        now = time.monotonic()
        if self._work[0] != name or done == 0:
            self._work = (name, now)
        if now - self._work[1] < PATIENCE:
            return
        if self._bar is not None and now - self._drawn_at > 0.1:
            self._drawn_at = now
            self._bar.update(self._bar.task_ids[0], text=f"{name}: {done} of {total}")
        is_first = self._told_at < self._work[1]
        if is_first or now - self._told_at > self.every_seconds:
            self._told_at = now
            log.info("%s: %d of %d after %.0f s", name, done, total, now - self._work[1])

    def on_epoch_end(self, training: Training) -> None:
        """Show the epoch's numbers."""
        text = self._sentence(training)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=training.step, epoch=training.epoch, text=text)
        now = time.monotonic()
        is_last = training.step >= training.num_steps or training.stop_reason is not None
        if self._is_first or is_last or now - self._told_at > self.every_seconds:
            self._is_first = False
            self._told_at = now
            log.info("epoch %d, step %d of %d: %s", training.epoch, training.step, training.num_steps, text)

    def on_train_end(self, training: Training) -> None:
        """Close the bar."""
        self._close()
        if training.stop_reason is not None:
            log.info("stopped at step %d: %s", training.step, training.stop_reason)

    def on_exception(self, training: Training, error: BaseException) -> None:
        """Leave the terminal as it was."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            for handler, stream in self._streams:
                handler.setStream(stream)
            self._streams = []
            self._bar.stop()
            self._bar = None

    def _sentence(self, training: Training) -> str:
        words = []
        for split in ("train", "validation"):
            row = training.latest.get(split, {})
            name = "loss" if "loss" in row else next((key for key in row if key.endswith("_loss")), None)
            if name is not None:
                words.append(f"{split} {name.replace('_', ' ')} {as_text(row[name])}")
        return ", ".join(words)

    def _open(self, training: Training) -> Bar:
        from rich.console import Console
        from rich.progress import Progress as Bar
        from rich.progress import TextColumn
        from rich.text import Text

        class TwoLines(Bar):
            """The bar, and beneath it the latest numbers, however narrow the terminal is."""

            def get_renderables(self) -> Iterator[Any]:
                yield self.make_tasks_table(self.tasks)
                for task in self.tasks:
                    yield Text(task.fields["text"], no_wrap=True, overflow="ellipsis")

        console = Console(stderr=True)
        bar = TwoLines(
            TextColumn("epoch {task.fields[epoch]}"),
            *columns(console.width, "step"),
            console=console,
            refresh_per_second=5,
        )
        bar.add_task("", total=training.num_steps, completed=training.step, epoch=training.epoch + 1, text="")
        stderr = sys.stderr
        bar.start()
        # The bar's own stderr prints log lines above the bar.
        handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.StreamHandler)]
        self._streams = [(handler, handler.stream) for handler in handlers if handler.stream is stderr]
        for handler, _ in self._streams:
            handler.setStream(sys.stderr)
        return bar


def as_text(value: float) -> str:
    """Return a number with four decimals, or in powers of ten where it is too large to be read."""
    return f"{value:.4f}" if abs(value) < 1e7 else f"{value:.4e}"


def columns(width: int, unit: str) -> list[ProgressColumn]:
    """Return a bar, a count and labelled times, which keep their widths on a terminal of 80 characters."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Column

    def whole() -> Column:
        return Column(no_wrap=True)

    return [
        BarColumn(min(40, max(8, width - 65)), table_column=whole()),
        MofNCompleteColumn(table_column=whole()),
        TextColumn(f"{unit}s,", table_column=whole()),
        TimeElapsedColumn(table_column=whole()),
        TextColumn("elapsed,", table_column=whole()),
        TimeRemainingColumn(table_column=whole()),
        TextColumn("left", table_column=whole()),
    ]


def is_interactive() -> bool:
    """Whether stderr is a terminal of this run's own: not a log file, not one job of a sweep among others."""
    if not sys.stderr.isatty():
        return False
    hydra = sys.modules.get("hydra.core.hydra_config")  # not imported here: present only under Hydra
    if hydra is None or not hydra.HydraConfig.initialized():
        return True
    return str(hydra.HydraConfig.get().mode).rpartition(".")[2] != "MULTIRUN"
