"""The lock of a run directory: held by the process that trains into it, dropped by the system when that ends."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from vaebench.runs.files import write_error
from vaebench.runs.regular import open_descriptor

NAME = ".lock"
TRIES = 10  # asking whether the lock is free takes it for an instant
_held_locks: set[int] = set()


class LockedError(ValueError):
    """Another process is training into the same run directory."""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Context in which this process alone holds the lock of a folder.

    Raises:
        LockedError: another process holds it; the sentence names its process id.
        WriteError: the lock file cannot be written.
    """
    path = folder / NAME
    try:
        descriptor = open_descriptor(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        _take(descriptor)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise LockedError(
            f"'{folder}' is in use: {holder} is training into it; wait for it to end, or choose another hydra.run.dir"
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise write_error(path, error) from error
    _held_locks.add(descriptor)
    try:
        with contextlib.suppress(OSError):  # the note is optional; a full disk must not stop a resume
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode(), 0)
        yield
    finally:
        _held_locks.discard(descriptor)
        os.close(descriptor)


def is_free(folder: Path) -> bool:
    """Whether the lock file is there and no process holds it; False where the system cannot tell."""
    import fcntl

    try:
        descriptor = open_descriptor(folder / NAME, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _take(descriptor: int) -> None:
    import fcntl

    for rest in reversed(range(TRIES)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if rest == 0:
                raise
            time.sleep(0.02)


def _close_held_locks() -> None:
    # A forked child, such as a data loader's worker, would keep the lock of a killed parent.
    for descriptor in _held_locks:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held_locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_held_locks)
