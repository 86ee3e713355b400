"""A command whose jobs are a shell script: everything of a sweep but the training, at a hundredth of its cost."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.sweeps.job_script import JOB
from vaebench.cli import sweeper
from vaebench.cli.main import main

COMMAND = """
import sys
from tests.sweeps.stand_in import run
sys.exit(run(sys.argv[1:]))
"""


def run(words: Sequence[str]) -> int:
    """Run a command whose jobs are a script: the first word. What would need torch is answered here."""
    program, *rest = words
    pool = functools.partial(sweeper.LocalPool, program=(program,))
    detached = (sys.executable, str(Path(program).with_name("command.py")), program)
    with mock.patch.multiple(sweeper, LocalPool=pool, PROGRAM=detached, examine=examine):
        return main(rest)


def examine(question: Mapping[str, Any]) -> dict[str, Any]:
    """As the process that builds what configurations name: here each is good, and hmc serves each model but one."""
    samplers = [words for words, _ in question.get("samplers", [])]
    names = [word.partition("=")[2] for words in samplers for word in words if word.startswith("sampler=")]
    reasons = [
        ["no density" if name == "hmc" and "model=rae_l2" in job else None for _, job, _ in question["jobs"]]
        for name in names
    ]
    return {"mistakes": [], "names": names, "reasons": reasons, "judges": ["fd"]}


class StandIn:
    """The command, in a folder of its own.

    Args:
        folder: Where it stands.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "active").mkdir()
        self.script = folder / "job.sh"
        self.script.write_text(JOB)
        self.script.chmod(self.script.stat().st_mode | stat.S_IXUSR)
        self.command = folder / "command.py"
        self.command.write_text(COMMAND)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command and leave it running; what it says goes into the file `told`."""
        with open(self.folder / "told", "wb") as told:
            return subprocess.Popen(
                [sys.executable, str(self.command), str(self.script), *words],
                cwd=self.folder, stdout=told, stderr=told, start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )  # fmt: skip

    def end(self, process: subprocess.Popen[bytes], code: int = 0) -> str:
        """Wait for a command, and return what it said."""
        found = process.wait(120)
        told = (self.folder / "told").read_text()
        assert found == code, told
        return told

    def run(self, *words: str, code: int = 0) -> str:
        """Run a command to its end in this process, which spares the start of another one."""
        told = io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
                found = run([str(self.script), *words])
        assert found == code, told.getvalue()
        return told.getvalue()

    @property
    def started(self) -> list[str]:
        """The words of each job, in the order of their starts."""
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def most_at_once(self) -> int:
        """How many jobs ran at the same time, at most."""
        return max(map(int, (self.folder / "counts").read_text().split()))


def wait_for(condition: Callable[[], object], seconds: float = 60.0, pause: float = 0.02) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(pause)


def resident_kib(process: int) -> int:
    """Memory that a process holds, KiB."""
    lines: Sequence[str] = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
