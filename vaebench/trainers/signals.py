"""Signals ask a training to save and leave; a second one ends the program at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR2") if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """A signal ended the training after everything was saved.

    Args:
        signum: The signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    def __str__(self) -> str:
        return f"interrupted by {signal.Signals(self.signum).name}"


class SignalFlag:
    """Context that notes a signal instead of dying of it; former handlers return on leaving.

    Attributes:
        received: The signal that came, or 0.

    Args:
        enabled: Whether this process listens; if not, it ignores the signals, and another one tells it.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self.received = 0
        self._former: dict[int, Any] = {}

    def __enter__(self) -> SignalFlag:
        if threading.current_thread() is threading.main_thread():  # Python sets handlers nowhere else
            for signum in SIGNALS:
                self._former[signum] = signal.signal(signum, self._note if self.enabled else signal.SIG_IGN)
        return self

    def __exit__(self, *error: object) -> None:
        for signum, handler in self._former.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)
        self._former.clear()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        if not self._is_chained(signum):
            signal.signal(signum, signal.SIG_DFL)  # the next one does not wait for Python

    def hand_on(self, signum: int) -> bool:
        """After saving: call the handler that stood there before (a cluster's requeues the job), if there was one.

        Returns: whether there was one; it may also leave the program.
        """
        self.received = 0
        if not self._is_chained(signum):
            return False
        self._former[signum](signum, None)
        return True

    def _is_chained(self, signum: int) -> bool:
        former = self._former.get(signum)
        return callable(former) and former not in (signal.default_int_handler, signal.SIG_DFL, signal.SIG_IGN)
