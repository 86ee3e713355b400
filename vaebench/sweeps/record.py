"""The record of a sweep: sweep.json in its directory, and the state of each of its jobs. Needs no torch to read."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vaebench.runs.files import read_json, write_json
from vaebench.runs.run import Run, now

FILE = "sweep.json"
VERSION = 1
FINISHED = ("done", "pruned")
MAX_JOBS = 1_000_000
FREE = ("sweep.num_trials=", "sweep.wait=", "sweep.dry_run=", "hydra.")  # words that may differ when a search goes on


@dataclass
class Job:
    """One run of a sweep.

    Attributes:
        number: Its place in the sweep, and the name of its run directory.
        overrides: What tells it from the other jobs, as words of the command line.
        job_id: What the cluster, or this machine, calls the process that ran it last; None before it is submitted.
        host: Where that process was started, for jobs on one machine.
        submissions: How often it was submitted.
        outcome: "failed", "died", "cancelled" or "pruned" once its process ended without success; None otherwise.
        reason: Why, in one line.
    """

    number: int
    overrides: list[str]
    job_id: str | None = None
    host: str | None = None
    submissions: int = 0
    outcome: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class JobState:
    """How far a job is.

    Attributes:
        name: "waiting", "submitted", "running", "done", "failed", "interrupted", "died", "cancelled" or "pruned".
        epoch: Epochs that its run has done, where that is known.
        step: Optimiser steps, likewise.
        reason: Why it ended, in one line, or None.
    """

    name: str
    epoch: int | None = None
    step: int | None = None
    reason: str | None = None


@dataclass
class Sweep:
    """A sweep and its directory.

    Attributes:
        path: The directory.
        words: What was typed after `vaebench train`, without the flags.
        place: Where the jobs run: "here", "local" or "slurm".
        jobs: In order of their numbers.
        created: When the sweep was made.
    """

    path: Path
    words: list[str]
    place: str
    jobs: list[Job] = field(default_factory=list)
    created: str = field(default_factory=now)

    @property
    def file(self) -> Path:
        """The record."""
        return self.path / FILE

    @property
    def logs(self) -> Path:
        """The folder of what the jobs printed."""
        return self.path / ".jobs"

    def run(self, job: Job) -> Run:
        """The run directory of a job."""
        return Run(self.path / str(job.number))

    def save(self) -> None:
        """Write the record, whole or not at all."""
        content = asdict(self)
        del content["path"]
        write_json(self.file, {"version": VERSION, **content})

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Sweep:
        """Read the record of a sweep.

        Raises:
            ValueError: there is no such directory, it holds no sweep, or its record is damaged.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise ValueError(f"sweep: there is no directory '{folder}'")
        if not (folder / FILE).is_file():
            raise ValueError(f"sweep: '{folder}' is not a sweep directory: it has no {FILE}")
        content = read_json(folder / FILE)
        try:
            if content["version"] != VERSION:
                raise ValueError(f"version {content['version']}, expected {VERSION}")
            words, place, created = content["words"], content["place"], content["created"]
            if not (_are_texts(words) and isinstance(place, str) and isinstance(created, str)):
                raise ValueError("expected words, place and created as text")
            if len(content["jobs"]) > MAX_JOBS:
                raise ValueError(f"more than {MAX_JOBS} jobs")
            jobs = [_job(item, number) for number, item in enumerate(content["jobs"])]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"sweep: '{folder / FILE}' is damaged: {error}") from None
        return cls(folder, words, place, jobs, created)

    @classmethod
    def newest(cls, outputs: str | os.PathLike[str] = "outputs") -> Sweep:
        """Return the sweep that was made last.

        Raises:
            ValueError: there is none.
        """
        found = [file.parent for file in Path(outputs).glob(f"multirun/*/*/{FILE}")]
        if not found:
            raise ValueError(f"sweep: found none under '{outputs}/multirun'; name its directory")
        return max((cls.open(folder) for folder in found), key=lambda sweep: sweep.created)

    def state(self, job: Job) -> JobState:
        """Tell how far a job is, from its run directory and from what became of its process."""
        status = _status(self.run(job))
        name = status.get("status")
        epoch, step, reason = _whole(status, "epoch"), _whole(status, "step"), _text(status, "reason")
        if job.outcome == "pruned":
            return JobState("pruned", epoch, step, job.reason)
        if name == "done":
            return JobState("done", epoch, step, reason)
        if name == "running" and is_locked(self.run(job)):
            return JobState("running", epoch, step)
        if job.outcome is not None:
            return JobState(job.outcome, epoch, step, job.reason or reason)
        if name == "running":
            # A cluster's node may hold the lock where this machine cannot see it.
            return JobState("running" if self.place == "slurm" else "died", epoch, step)
        if name in ("failed", "interrupted"):
            return JobState(str(name), epoch, step, reason)
        return JobState("waiting" if job.job_id is None else "submitted")

    def states(self) -> dict[int, JobState]:
        """The states of all jobs, by number."""
        return {job.number: self.state(job) for job in self.jobs}

    def unfinished(self) -> list[Job]:
        """The jobs whose runs are neither done nor pruned."""
        return [job for job in self.jobs if self.state(job).name not in FINISHED]


def continued(folder: Path, words: Sequence[str], place: str, jobs: Sequence[Sequence[str]]) -> Sweep:
    """Return the sweep of a directory: a new one, or the one that lies there with the jobs that are asked for now.

    Args:
        folder: `hydra.sweep.dir`.
        words: What was typed.
        place: Where the jobs run.
        jobs: The overrides of each job.

    Raises:
        ValueError: the directory holds a sweep without some of these jobs' order, or other files.
    """
    wanted = [list(job) for job in jobs]
    if not (folder / FILE).is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise ValueError(
                f"hydra.sweep.dir: '{folder}' is not empty and holds no sweep; choose a new directory, or an empty one"
            )
        return Sweep(folder, list(words), place, [Job(number, job) for number, job in enumerate(wanted)])
    sweep = Sweep.open(folder)
    before = [set(job.overrides) for job in sweep.jobs]
    now_asked = [set(job) for job in wanted]
    missing = [job for job in before if job not in now_asked]
    if missing:
        keys = _differing_keys(before, now_asked)
        raise ValueError(
            f"hydra.sweep.dir: '{folder}' holds another sweep; it differs in {', '.join(keys)}; a sweep can only gain "
            "jobs, so choose another hydra.sweep.dir"
        )
    new = [job for job in wanted if set(job) not in before]
    sweep.jobs += [Job(len(sweep.jobs) + offset, job) for offset, job in enumerate(new)]
    sweep.words, sweep.place = list(words), place
    return sweep


def search_in(folder: Path, words: Sequence[str], place: str) -> Sweep:
    """Return the record of a search: a new one, or the one that lies there, if it searches the same space.

    Raises:
        ValueError: the directory holds other files, or a sweep of other words.
    """
    sweep = continued(folder, words, place, []) if not (folder / FILE).is_file() else Sweep.open(folder)

    def space(given: Sequence[str]) -> set[str]:
        return {word for word in given if not word.lstrip("+").startswith(FREE)}

    differing = space(sweep.words) ^ space(words)
    if differing:
        keys = sorted({word.partition("=")[0] for word in differing})
        raise ValueError(
            f"hydra.sweep.dir: '{folder}' holds another sweep; it differs in {', '.join(keys)}; choose another "
            "hydra.sweep.dir"
        )
    sweep.words, sweep.place = list(words), place
    return sweep


def is_locked(run: Run) -> bool:
    """Whether a process on this machine is training into the run directory."""
    try:
        descriptor = os.open(run.path / ".lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EAGAIN)
    finally:
        os.close(descriptor)
    return False


def _status(run: Run) -> Mapping[str, Any]:
    with contextlib.suppress(OSError, ValueError, TypeError):
        found = run.read_status()
        return found if isinstance(found, Mapping) else {}
    return {}


def _whole(status: Mapping[str, Any], key: str) -> int | None:
    value = status.get(key)
    return value if isinstance(value, int) else None


def _text(status: Mapping[str, Any], key: str) -> str | None:
    value = status.get(key)
    return value if isinstance(value, str) else None


def _job(item: Mapping[str, Any], number: int) -> Job:
    job = Job(**item)
    optional = (job.job_id, job.host, job.outcome, job.reason)
    if job.number != number or not _are_texts(job.overrides) or not isinstance(job.submissions, int):
        raise ValueError(f"job {number} is not a number, a list of overrides and a count")
    if not all(value is None or isinstance(value, str) for value in optional):
        raise ValueError(f"job {number} holds something else than text")
    return job


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _differing_keys(before: Sequence[set[str]], after: Sequence[set[str]]) -> list[str]:
    words = set().union(*before) ^ set().union(*after)
    keys = {word.partition("=")[0] for word in words}
    return sorted(keys) or ["the combinations of its values"]
