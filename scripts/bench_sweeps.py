"""What a sweep costs beside its jobs: starting them, planning a thousand, and looking at a thousand."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench_measure import Row, Settings, Spread, child, interleaved, rows

from vaebench.runs.run import write_json
from vaebench.sweeps.local import LocalPool
from vaebench.sweeps.record import Sweep, continued
from vaebench.sweeps.runner import run_to_end

NOTHING = ("sh", "-c", "exit 0")  # a job that is done at once
PEAK = """
import contextlib, io, json, re, sys
from vaebench.cli.main import main
with contextlib.redirect_stdout(io.StringIO()):
    code = main(sys.argv[1:])
# The kernel's ru_maxrss would count what this program's parent held.
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
print(json.dumps([code, peak, "torch" in sys.modules]))
"""


def sweeps(settings: Settings) -> list[Row]:
    """Launching against bare processes, planning against a single job, and the table against bare Python."""
    return [*_launching(settings), *_planning(settings), *_status(settings)]


def _launching(settings: Settings) -> list[Row]:
    count = settings.size(50, 5)

    def bare() -> None:
        for _ in range(count):
            subprocess.run(NOTHING, stdin=subprocess.DEVNULL, check=True)

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            sweep = continued(Path(folder) / "s", [], "local", [[f"seed={number}"] for number in range(count)])
            run_to_end(sweep, LocalPool(1, program=NOTHING), sweep.jobs, lambda *_: None)

    names = {"bare process": bare, "job of a sweep": ours}
    return rows(
        "sweeps", interleaved(names, settings.size(5, 1)), against="bare process", unit="ms a job",
        value=lambda seconds: 1000 * seconds / count,
        notes={"job of a sweep": "the record is written, and safely on the disk, when it starts and when it ends"},
    )  # fmt: skip


def _planning(settings: Settings) -> list[Row]:
    found: dict[int, Spread] = {}
    counts = (1, settings.size(1_000, 10))
    for count in counts:
        peaks = []
        for _ in range(settings.size(3, 1)):
            with tempfile.TemporaryDirectory() as folder:
                words = ["train", "-m", f"seed=range(0,{count})", "hardware=submitit_local", "sweep.dry_run=true"]
                code, peak, has_torch = json.loads(child(["-c", PEAK, *words], settings.threads, cwd=folder))
            if code or has_torch:
                raise RuntimeError(f"a dry run of {count} jobs ended with {code}, torch imported: {has_torch}")
            peaks.append(peak)
        found[count] = Spread.of(peaks)
    single, many = (f"dry run of {count:,} {'job' if count == 1 else 'jobs'}" for count in counts)
    ratio = found[counts[1]].median / found[1].median
    return [
        Row("sweeps", single, found[1], "MiB"),
        Row("sweeps", many, found[counts[1]], "MiB", Spread(ratio, ratio, ratio), single, "the parent alone"),
    ]


def _status(settings: Settings) -> list[Row]:
    count = settings.size(1_000, 10)
    with tempfile.TemporaryDirectory() as folder:
        here = _sweep(Path(folder) / "here", "local", "done", count)
        cluster = _sweep(Path(folder) / "cluster", "slurm", "running", count)
        _stand_in(Path(folder) / "squeue", [f"{job.job_id}|RUNNING|None" for job in cluster.jobs])
        name, asked = f"sweep status, {count:,} jobs", f"sweep status, {count:,} jobs that Slurm is asked for"
        path = os.environ["PATH"]
        os.environ["PATH"] = f"{folder}{os.pathsep}{path}"
        try:
            commands = {"python": ["-c", "pass"], name: _look_at(here), asked: _look_at(cluster)}
            times = interleaved({key: _child(words, settings) for key, words in commands.items()}, settings.size(5, 1))
        finally:
            os.environ["PATH"] = path
        notes = {name: "aim: under a second; reads JSON only", asked: "a script stands in for squeue"}
        return rows("sweeps", times, against="python", unit="s", value=float, notes=notes)


def _sweep(folder: Path, place: str, status: str, count: int) -> Sweep:
    sweep = continued(folder, [], place, [["model=vae", f"seed={number}"] for number in range(count)])
    for job in sweep.jobs:
        job.job_id = f"7_{job.number}" if place == "slurm" else None
        write_json(sweep.run(job).status, {"status": status, "epoch": 9, "step": 90, "reason": None, "time": ""})
    sweep.save()
    return sweep


def _stand_in(program: Path, lines: list[str]) -> None:
    program.write_text("\n".join(["#!/bin/sh", "cat << END", *lines, "END", ""]))
    program.chmod(0o755)


def _look_at(sweep: Sweep) -> list[str]:
    return ["-m", "vaebench", "sweep", "status", str(sweep.path)]


def _child(arguments: list[str], settings: Settings) -> Callable[[], object]:
    return lambda: child(arguments, settings.threads)
