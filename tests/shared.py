"""What many tests begin with, as trained runs: made once in a session, by the worker that needs it first."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

STORE: list[Path] = []  # the folder that the workers of this session share; tests/conftest.py names it


def made_once(make: Callable[[Path], object], *key: str) -> Path:
    """A file or a folder to read and never to change.

    Args:
        make: Writes to the path that it is given. It is called for the first test that asks for this key.
        key: All that the content depends on.
    """
    (store,) = STORE
    kept = store / hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    with open(kept.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            begun = kept.with_suffix(".begun")
            shutil.rmtree(begun, ignore_errors=True)
            make(begun)
            begun.rename(kept)
    return kept


def copied(target: Path, make: Callable[[Path], object], *key: str) -> None:
    """Fill a folder that is not yet there with a test's own copy."""
    shutil.copytree(made_once(make, *key), target)
