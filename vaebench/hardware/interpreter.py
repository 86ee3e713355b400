"""How a process of this package starts another."""

from __future__ import annotations

import os
import sys


def run_module(name: str) -> tuple[str, ...]:
    """Return the command that runs a module: `python -P -m name`."""
    return (*python(), "-m", name)


def python() -> tuple[str, ...]:
    """Return the command of this interpreter, deaf to files of the working folder that are named like one of Python's.

    `python -m` imports from the working folder before all else, which the command `vaebench` does not: somebody's
    `queue.py` or `random.py` there would be run. Python 3.10 has no way to leave the folder out. Where this process
    imports from it too (`python -m vaebench` in a clone), it stays.
    """
    try:
        here = os.getcwd()
    except FileNotFoundError:  # removed meanwhile
        here = ""
    is_deaf = sys.version_info >= (3, 11) and not {"", here} & set(sys.path)
    return (sys.executable, *(["-P"] if is_deaf else []))
