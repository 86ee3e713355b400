"""Jobs as processes on this machine, a bounded number at a time."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from vaebench.hardware.interpreter import run_module
from vaebench.runs.regular import open_regular
from vaebench.sweeps.pool import Outcome, last_line
from vaebench.sweeps.record import Job, Sweep

JOB = "VAEBENCH_JOB"  # set in the environment of a sweep's jobs
GRACE = 60.0  # seconds for a job at its time limit to save


class LocalPool:
    """Processes of this machine.

    Args:
        parallelism: Jobs at a time, >= 1.
        timeout_min: Minutes after which a job is asked to save and end; None never asks.
        gpus: Numbers of the GPUs that jobs take in turn.
        program: What runs a job: a command that takes the words after `vaebench`, which it is by default.
    """

    def __init__(
        self,
        parallelism: int,
        timeout_min: float | None = None,
        gpus: Sequence[str] = (),
        program: Sequence[str] | None = None,
    ) -> None:
        self.capacity: int | None = parallelism
        self.timeout_min = timeout_min
        self.gpus = list(gpus)
        self.program = list(program or run_module("vaebench"))
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._started: dict[int, float] = {}
        self._gpu_of: dict[int, str] = {}

    def submit(self, sweep: Sweep, jobs: Sequence[Job]) -> None:
        """Start a process for each job."""
        sweep.refuse_links(jobs)
        sweep.logs.mkdir(parents=True, exist_ok=True)
        for job in jobs:
            with open_regular(log_of(sweep, job), os.O_WRONLY | os.O_CREAT | os.O_APPEND) as log:
                process = subprocess.Popen(
                    [*self.program, *sweep.words_of(job)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # so that `cancel` alone passes Ctrl-C on
                    env=self._environment(job),
                )
            self._processes[job.number], self._started[job.number] = process, time.monotonic()
            job.job_id, job.host, job.submissions = str(process.pid), platform.node(), job.submissions + 1
            job.outcome = job.reason = None

    def is_under_way(self, sweep: Sweep, job: Job) -> bool:
        """Whether a process of an earlier command still runs here."""
        return job.number not in self._processes and job.outcome is None and _is_ours(sweep, job)

    def outcome(self, sweep: Sweep, job: Job) -> Outcome | None:
        """Look at the process, and end it where its time is over."""
        process = self._processes.get(job.number)
        if process is None:  # started by an earlier command
            return None if _is_ours(sweep, job) else _left_behind(sweep, job)
        code = process.poll()
        if code is None:
            self._limit(job, process)
            return None
        del self._processes[job.number]
        self._gpu_of.pop(job.number, None)
        if code == 0:
            return Outcome("done")
        if code == 130:
            return Outcome("interrupted", "it was asked to end, and saved")
        if code < 0:
            kill = ", as the system does where memory runs out" if code == -signal.SIGKILL else ""
            return Outcome("died", f"killed by {signal.Signals(-code).name}{kill}")
        return Outcome("failed", last_line(read_end(log_of(sweep, job))) or f"exit code {code}")

    def cancel(self, sweep: Sweep, job: Job) -> None:
        """Send SIGTERM, on which a training saves and ends."""
        process = self._processes.get(job.number)
        if process is not None:
            process.terminate()
        elif _is_ours(sweep, job) and job.job_id is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(job.job_id), signal.SIGTERM)

    def describe(self, sweep: Sweep, jobs: Sequence[Job]) -> str:
        """Nothing beyond the table of jobs."""
        return ""

    def _limit(self, job: Job, process: subprocess.Popen[bytes]) -> None:
        if self.timeout_min is None:
            return
        over = time.monotonic() - self._started[job.number] - 60 * self.timeout_min
        if over > GRACE:
            process.kill()
        elif over > 0:
            process.terminate()

    def _environment(self, job: Job) -> dict[str, str]:
        environment = {**os.environ, JOB: str(job.number)}
        assert self.capacity is not None
        # When threads of several jobs share a core, they wait for each other far longer than they compute.
        environment.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // self.capacity)))
        if self.gpus:
            taken = list(self._gpu_of.values())
            self._gpu_of[job.number] = min(self.gpus, key=taken.count)
            environment["CUDA_VISIBLE_DEVICES"] = self._gpu_of[job.number]
        return environment


def visible_gpus() -> list[str]:
    """Numbers of the NVIDIA GPUs that this process may use, without starting CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [number.strip() for number in visible.split(",") if number.strip()]
    return [str(number) for number in range(len(list(Path("/proc/driver/nvidia/gpus").glob("*"))))]


def log_of(sweep: Sweep, job: Job) -> Path:
    """The file of what a job printed on this machine."""
    return sweep.logs / f"{job.number}.log"


def read_end(path: Path, size: int = 10_000) -> str:
    """Return the last bytes of a file as text; "" where there is none."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return bytes(file.read(size)).decode(errors="replace")
    except OSError:
        return ""


def _is_ours(sweep: Sweep, job: Job) -> bool:
    """Whether the process of a job still runs here, and is what we started: the same command on the same directory."""
    if job.job_id is None or job.host != platform.node() or not job.job_id.isdigit():
        return False
    process = Path("/proc", job.job_id)
    try:
        command = [os.fsdecode(word) for word in (process / "cmdline").read_bytes().split(b"\0")]
        folder = os.readlink(process / "cwd")
    except OSError:
        return False
    places = [word.partition("=")[2] for word in command if word.startswith(("hydra.run.dir=", "run="))]
    is_there = any(
        os.path.realpath(os.path.join(folder, place)) == os.path.realpath(sweep.run(job)) for place in places
    )
    return is_there and {job.verb, *job.overrides} <= set(command)


def _left_behind(sweep: Sweep, job: Job) -> Outcome:
    """What the files say of a job whose process nobody waited for."""
    state = sweep.state(job)
    if state.name in ("done", "failed", "interrupted"):
        return Outcome(state.name, state.reason)
    return Outcome("died", "its process is gone")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
