"""What Slurm and the files of its jobs say of them; each of Slurm's programs is asked once for many jobs."""

from __future__ import annotations

import contextlib
import pickle
import re
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from vaebench.sweeps.local import read_end
from vaebench.sweeps.pool import Outcome, last_line
from vaebench.sweeps.record import FINISHED, Job, JobState, Sweep

PATIENCE = 60.0  # seconds that a busy controller may take to answer
AT_ONCE = 5_000  # jobs on one command line, which the system bounds
ENDED = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT",
)  # fmt: skip
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED")
OUT_OF_TIME = "timed-out too many times"  # submitit's wording
OUT_OF_MEMORY = re.compile(r"slurmstepd.*(?:memory limit|oom.kill)", re.IGNORECASE)
_REASONS = {
    "OUT_OF_MEMORY": "it ran out of memory; raise hardware.mem_gb",
    "TIMEOUT": "it ran out of time; raise hardware.timeout_min or hardware.max_requeues",
    "NODE_FAIL": "its node failed",
    "CANCELLED": "it was cancelled",
    "FAILED": "its process crashed or was killed: Slurm says FAILED",  # otherwise it leaves a result
}


class UnknownError(ValueError):
    """Slurm cannot be asked; the sentence says why."""


def queued(job_ids: Collection[str]) -> dict[str, tuple[str, str]]:
    """Return the state of each job that Slurm's controller remembers, and why it waits ("None" where it does not).

    Raises:
        UnknownError: there is no squeue, or the controller does not answer.
    """
    arrays = ",".join(sorted({job_id.partition("_")[0] for job_id in job_ids}))
    words = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r", f"--jobs={arrays}"]
    return {name: (state, reason) for name, state, reason in _rows(words, 3)}


def accounted(job_ids: Collection[str]) -> dict[str, str]:
    """Return the state of each job in Slurm's accounting, which remembers them for longer.

    Raises:
        UnknownError: there is no sacct, or no accounting.
    """
    words = ["sacct", "--noheader", "--parsable2", "-X", "-o", "JobID,State", "-j", ",".join(sorted(job_ids))]
    return {name: state.partition(" ")[0] for name, state in _rows(words, 2)}  # "CANCELLED by 1000"


def cancel(job_ids: Sequence[str]) -> None:
    """Ask Slurm to end jobs; no error for those that have ended.

    Raises:
        UnknownError: there is no scancel, or the controller does not answer.
    """
    for start in range(0, len(job_ids), AT_ONCE):
        _ask(["scancel", *job_ids[start : start + AT_ONCE]])


def _rows(words: Sequence[str], width: int) -> list[list[str]]:
    rows = [line.strip().split("|") for line in _ask(words).splitlines()]
    return [row[:width] for row in rows if len(row) >= width]


def _ask(words: Sequence[str]) -> str:
    """Run one of Slurm's programs and return what it prints."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    except FileNotFoundError:
        raise UnknownError(f"there is no Slurm on this machine (no {words[0]})") from None
    except (OSError, subprocess.SubprocessError):
        raise UnknownError(f"{words[0]} does not answer") from None
    if done.returncode != 0 and "invalid job id" not in done.stderr.lower():  # of jobs that it has forgotten
        raise UnknownError(last_line(done.stderr) or f"{words[0]}: exit code {done.returncode}")
    return done.stdout


def result_of(sweep: Sweep, job: Job) -> Path:
    """The file into which submitit writes how a job ended."""
    return sweep.path / ".submitit" / str(job.job_id) / f"{job.job_id}_0_result.pkl"


def log_of(sweep: Sweep, job: Job) -> Path | None:
    """The log of a job, or None before it has one."""
    if job.job_id is None:
        return None
    log = result_of(sweep, job).with_name(f"{job.job_id}_0_log.err")
    return log if log.is_file() else None


def end_of(sweep: Sweep, job: Job, state: str | None) -> Outcome | None:
    """Return how a job ended that is no longer in the queue: its own word before Slurm's.

    Args:
        sweep: The sweep.
        job: The job.
        state: What Slurm says, or None where it does not know the job any more.

    Returns: None where Slurm says that it was completed, and it left nothing.
    """
    result = result_of(sweep, job)
    if result.is_file():
        return _outcome_of(result, log_of(sweep, job))
    log = log_of(sweep, job)
    told = "" if log is None else read_end(log) + read_end(log.with_suffix(".out"))
    if OUT_OF_MEMORY.search(told):
        state = "OUT_OF_MEMORY"  # without control groups, Slurm itself only says FAILED
    elif OUT_OF_TIME in told:
        state = "TIMEOUT"
    if state is None and log is None:
        return Outcome("cancelled", "it left the queue before it began")
    if state is None:
        return Outcome("died", "it left the queue without a result")
    if state == "COMPLETED":
        return None
    return Outcome("cancelled" if state == "CANCELLED" else "died", _REASONS.get(state, f"Slurm says {state}"))


def states_of(sweep: Sweep) -> tuple[dict[int, JobState], str | None]:
    """Return how far the jobs of a cluster's sweep are: by their files, and by Slurm where these leave it open.

    The record is not changed: another command may be at work on it.

    Returns: the states by number, and why Slurm could not be asked, or None.
    """
    states = sweep.states()
    open_jobs = [
        job
        for job in sweep.jobs
        if job.job_id is not None and job.outcome is None and states[job.number].name not in FINISHED
    ]
    if not open_jobs:
        return states, None
    try:
        queue = queued([str(job.job_id) for job in open_jobs])
    except UnknownError as error:
        return states, str(error)
    books: dict[str, str] = {}
    forgotten = [job for job in open_jobs if job.job_id not in queue and not result_of(sweep, job).is_file()]
    if forgotten:
        with contextlib.suppress(UnknownError):  # many clusters keep no books
            books = accounted([str(job.job_id) for job in forgotten])
    for job in open_jobs:
        slurms, why = queue.get(str(job.job_id), (books.get(str(job.job_id)), "None"))
        states[job.number] = _state(sweep, job, states[job.number], slurms, why)
    return states, None


def _state(sweep: Sweep, job: Job, by_files: JobState, slurms: str | None, why: str) -> JobState:
    epoch, step = by_files.epoch, by_files.step
    if slurms in RUNNING:
        return JobState("running", epoch, step)
    if slurms is not None and slurms not in ENDED:
        return JobState("submitted", epoch, step, None if why == "None" else f"Slurm waits: {why}")
    if by_files.name == "failed":
        return by_files
    outcome = end_of(sweep, job, slurms)
    if outcome is None or outcome.name == "done":
        return sweep.state(job)  # its last words may be newer than what was read before Slurm was asked
    return JobState(outcome.name, epoch, step, outcome.reason)


def _outcome_of(result: Path, log: Path | None = None) -> Outcome:
    """Return the outcome that the job wrote. It was written by our own job, with the rights of this user."""
    try:
        if result.stat().st_size > 1_000_000:
            return Outcome("failed", "its result is larger than any of ours")
        with open(result, "rb") as file:
            kind, value = _Plain(file).load()
    except (OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
        return Outcome("failed", f"its result cannot be read: {error}")
    if kind == "success":
        return Outcome("done")
    end = "" if log is None else read_end(log)
    if OUT_OF_TIME in str(value) + end:
        return Outcome("failed", _REASONS["TIMEOUT"])
    told = [line for line in end.splitlines() if re.match(r"vaebench \w+: ", line)]
    return Outcome("failed", last_line(told[-1] if told else str(value)))


class _Plain(pickle.Unpickler):
    """Reads texts and numbers, and refuses everything that would run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")
