"""How far a long computation is: a bar on a terminal, a plain line now and then elsewhere."""

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
    """What is done of what there is to do.

    Attributes:
        done: How much.
        total: Of how much; None where it is not known yet.
    """

    done: int = 0
    total: int | None = None
    _show: Callable[[ProgressDisplay], object] = field(default=lambda progress: None, repr=False)

    def tell(self, done: int, total: int | None = None) -> None:
        """Note how much is done."""
        self.done, self.total = done, self.total if total is None else total
        self._show(self)

    def advance(self, amount: int) -> None:
        """Note that some more is done."""
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
