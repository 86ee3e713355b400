"""A command whose jobs are a shell script: everything of a sweep but the training, at a hundredth of its cost."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# What a job does follows from the word `trainer.optimizer=`, which needs no class here; `active` and `log` say which
# ran at the same time, and how often.
JOB = r"""#!/bin/sh
kind=done
verb=$1
for word in "$@"; do
    case $word in
        hydra.run.dir=*) run=${word#hydra.run.dir=} ;;
        run=*) run=${word#run=} ;;
        output=*) output=${word#output=} ;;
        sampler=*) sampler=${word#sampler=} ;;
        trainer.optimizer=*) kind=${word#trainer.optimizer=} ;;
        metric=*) metric=$(echo "${word#metric=}" | tr -d '[]' | tr ',' ' ') ;;
        samples=*) samples=-${word#samples=} ;;
    esac
done
here=$(dirname "$0")
echo "$*" >> "$here/log"
: > "$here/active/$$"
ls "$here/active" | wc -l >> "$here/counts"
trap 'rm -f "$here/active/$$"; exit 130' TERM
mkdir -p "$run"
case $kind in
    raises) echo "vaebench $verb: no luck" >&2; rm -f "$here/active/$$"; exit 1 ;;
    killed) rm -f "$here/active/$$"; kill -KILL $$ ;;
    eats) rm -f "$here/active/$$"; exec python3 -c "
import time
eaten = bytearray(400_000_000)
for place in range(0, len(eaten), 4096): eaten[place] = 1
time.sleep(20)" ;;
    waits)
        trap '' USR2
        : > "$run/started"
        n=0; while [ ! -e "$here/go" ] && [ $n -lt 2000 ]; do n=$((n + 1)); sleep 0.05; done ;;
esac
case $verb in
    train) echo '{"status": "done", "epoch": 1, "step": 1}' > "$run/status.json" ;;
    sample) mkdir -p "$run/samples/$sampler"; echo '{}' > "$run/samples/$sampler/diagnostics.json" ;;
    evaluate)
        mkdir -p "$run/evaluation"
        for name in $metric; do echo '{}' > "$run/evaluation/$name$samples.json"; done ;;
    report) mkdir -p "$output"; : > "$output/report.html" ;;
esac
rm -f "$here/active/$$"
"""
COMMAND = """
import sys
from vaebench.cli import sweeper
from vaebench.cli.main import main

program, *words = sys.argv[1:]
local = sweeper.LocalPool
sweeper.LocalPool = lambda *options: local(*options, program=(program,))


def examine(question):
    samplers = [words for words, _ in question.get("samplers", [])]
    names = [word.partition("=")[2] for words in samplers for word in words if word.startswith("sampler=")]
    serves = lambda name, job: not (name == "hmc" and "model=rae_l2" in job)
    reasons = [[None if serves(name, job) else "no density" for _, job, _ in question["jobs"]] for name in names]
    return {"mistakes": [], "names": names, "reasons": reasons, "judges": ["fd"]}


sweeper.examine = examine
sys.exit(main(words))
"""


@dataclass(frozen=True)
class Script:
    """The same for a cluster: what a job calls there."""

    script: str
    words: tuple[str, ...]

    def __call__(self) -> None:
        """Run the script; raise where it fails."""
        subprocess.run([self.script, *self.words], check=True)


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
        """Run a command to its end."""
        return self.end(self.start(*words), code)

    @property
    def started(self) -> list[str]:
        """The words of each job, in the order of their starts."""
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def most_at_once(self) -> int:
        """How many jobs ran at the same time, at most."""
        return max(map(int, (self.folder / "counts").read_text().split()))


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def resident_kib(process: int) -> int:
    """Memory that a process holds, KiB."""
    lines: Sequence[str] = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
