"""Whole commands, each in a process forked from one that has imported vaebench and done nothing else.

The process that runs the tests cannot fork them itself: after thousands of tests it holds threads, process groups and
garbage, and a child that collects this garbage may crash.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import pkgutil
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SECONDS = 60  # after which a command hangs
MAX_MEMORY = 4 * 2**30


class Answer(NamedTuple):
    """How a command ended.

    Attributes:
        code: Exit code, negative for a signal.
        output: Of both streams.
        memory: Bytes taken at most, above those taken by the imports.
    """

    code: int
    output: str
    memory: int


class Commands:
    """The process to fork from; it is told a folder and words in a line, and answers in a line."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.commands"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="ascii",
        )

    def run(self, folder: Path, words: list[str]) -> Answer:
        """Run one command in a folder."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps([str(folder), words])}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the process that forks commands ended with {self._process.wait()}"
        return Answer(*json.loads(line))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def forked(folder: str, words: list[str]) -> Answer:
    """Run one command in a child of this process, bounded in memory and time."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _become(folder, words, writing)
    os.close(writing)
    pieces, ends = [], time.monotonic() + SECONDS
    while time.monotonic() < ends:
        if select.select([reading], [], [], max(0.0, ends - time.monotonic()))[0]:
            piece = os.read(reading, 2**16)
            if not piece:
                break
            pieces.append(piece)
    else:
        os.killpg(child, signal.SIGKILL)
    os.close(reading)
    _, status, usage = os.wait4(child, 0)
    least = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    output = b"".join(pieces).decode(errors="replace")
    return Answer(os.waitstatus_to_exitcode(status), output, (usage.ru_maxrss - least) * 1024)


def _become(folder: str, words: list[str], writing: int) -> None:
    """Run the command in place of this process, and leave."""
    from vaebench.cli.main import main

    code = 99
    try:
        os.setsid()
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.close(writing)
        sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(number, "w"), "utf-8") for number in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 2 * MAX_MEMORY, size + 2 * MAX_MEMORY))
        sys.argv = ["vaebench", *words]
        code = main(words)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 98
    except BaseException as error:
        print(f"Traceback: {type(error).__name__}: {error}")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    """Import everything, so that a child need not; then answer until the input ends."""
    import vaebench

    for module in pkgutil.walk_packages(vaebench.__path__, "vaebench."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    from hydra.core.plugins import Plugins

    Plugins.instance()
    for line in sys.stdin:
        print(json.dumps(forked(*json.loads(line))), flush=True)


if __name__ == "__main__":
    serve()
