"""Signals of terminals and batch systems: noted while a training saves, and an interruption everywhere else."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Ctrl-C, a closed terminal, the end of a job (TERM), warnings before it (USR1 and USR2 from Slurm and SGE), and
# a limit of processor time. CONT, which Slurm sends before TERM, only wakes a stopped process.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
_INTERRUPTED = 130
_DEFAULTS = (signal.default_int_handler, signal.SIG_DFL, signal.SIG_IGN, None)


class Interrupted(KeyboardInterrupt):
    """A signal ended the program; what was to be saved is saved.

    Args:
        signum: The signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    def __str__(self) -> str:
        return f"interrupted by {signal.Signals(self.signum).name}"


class _Program:
    """The handling of signals outside of the training loop."""

    pending = 0
    raises = False

    def handle(self, signum: int, frame: FrameType | None) -> None:
        if self.raises:
            raise Interrupted(signum)
        if self.pending:  # a second signal: stop at once
            os._exit(_INTERRUPTED)
        self.pending = signum


_program = _Program()


@contextmanager
def interruptible() -> Iterator[None]:
    """Context of a command, in which every signal is an interruption; former handlers return on leaving.

    While modules are imported an exception can get lost or show a traceback, so the signal is only noted at first:
    `raise_interrupts` raises it then, and from there on the next ones at once.
    """
    former: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # the only thread that may set handlers
        for signum in SIGNALS:
            if signal.getsignal(signum) in (signal.default_int_handler, signal.SIG_DFL):
                former[signum] = signal.signal(signum, _program.handle)
    _program.pending, _program.raises = 0, False
    try:
        yield
    finally:
        for signum, handler in former.items():
            signal.signal(signum, handler)
        _program.pending, _program.raises = 0, False


def raise_interrupts() -> None:
    """Let signals raise from now on, one that is waiting at once.

    Raises:
        Interrupted: a signal came since the command began.
    """
    _program.raises = True
    if _program.pending:
        signum, _program.pending = _program.pending, 0
        raise Interrupted(signum)


class SignalFlag:
    """Context that notes a signal instead of dying of it; former handlers return on leaving.

    Attributes:
        received: The signal that came, or 0.
        raises: Whether a signal is an interruption at once; one whose former handler may let the program go on is not.

    Args:
        enabled: Whether this process listens; if not, it ignores the signals, and another one passes them on.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self.received = 0
        self.raises = False
        self._former: dict[int, Any] = {}

    def __enter__(self) -> SignalFlag:
        if threading.current_thread() is threading.main_thread():  # the only thread that may set handlers
            for signum in SIGNALS:
                if signum == getattr(signal, "SIGHUP", None) and signal.getsignal(signum) == signal.SIG_IGN:
                    continue  # ignored, as under nohup
                self._former[signum] = signal.signal(signum, self._note if self.enabled else signal.SIG_IGN)
        return self

    def __exit__(self, *error: object) -> None:
        for signum, handler in self._former.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)
        self._former.clear()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        if not self._is_chained(signum):
            signal.signal(signum, signal.SIG_DFL)  # the next signal kills at once
            if self.raises:
                raise Interrupted(signum)

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
        return former not in (*_DEFAULTS, _program.handle) and callable(former)
