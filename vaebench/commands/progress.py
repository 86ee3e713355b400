"""Progress of a long computation: a bar on a terminal, a line every half minute elsewhere."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import TextColumn

from vaebench.messages import counted
from vaebench.trainers.callbacks.progress import columns

EVERY = 30.0  # seconds between two lines
_log = logging.getLogger(__name__)


@dataclass
class ProgressDisplay:
    """How much of a computation is done.

    Attributes:
        done: Units that are done.
        total: Units in all; None while unknown.
    """

    done: int = 0
    total: int | None = None
    _show: Callable[[ProgressDisplay], object] = field(default=lambda progress: None, repr=False)

    def tell(self, done: int, total: int | None = None) -> None:
        """Set how much is done."""
        self.done, self.total = done, self.total if total is None else total
        self._show(self)

    def advance(self, amount: int) -> None:
        """Add to what is done."""
        self.tell(self.done + amount)


@contextmanager
def progress(name: str, unit: str, total: int | None = None) -> Iterator[ProgressDisplay]:
    """Show progress while the context lasts, also while nothing advances.

    Args:
        name: What is computed.
        unit: What is counted, in the singular.
        total: How many there are.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        with Bar(
            TextColumn("{task.description}"), *columns(console.width, unit), console=console, transient=True
        ) as bar:
            task = bar.add_task(name, total=total)
            yield ProgressDisplay(0, total, lambda now: bar.update(task, completed=now.done, total=now.total))
        return
    now, is_over, started = ProgressDisplay(0, total), threading.Event(), time.monotonic()
    _log.info("%s: %s", name, "started" if total is None else counted(total, unit))

    def say() -> None:
        while not is_over.wait(EVERY):
            done = counted(now.done, unit) if now.total is None else f"{now.done} of {counted(now.total, unit)}"
            _log.info("%s: %s after %.0f s", name, done, time.monotonic() - started)

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield now
    finally:
        is_over.set()
        thread.join()
