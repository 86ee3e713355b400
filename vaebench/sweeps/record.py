"""The record of a sweep: sweep.json in its directory, and the state of each of its jobs. Needs no torch to read."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vaebench.runs.files import read_json, write_json
from vaebench.runs.run import Run, now
from vaebench.sweeps.step import Step

FILE = "sweep.json"
VERSION = 1
FINISHED = ("done", "pruned")
COMMANDS = ("train", "benchmark")  # whose sweeps have a directory
VERBS = ("train", "sample", "evaluate", "report")  # of a single job
PLACES = ("here", "local", "slurm")
KINDS = ("multirun", "benchmark")  # folders of sweeps under outputs/
FLAGS = {"--config-dir", "--config-name"}
MAX_JOBS = 1_000_000
FREE = ("sweep.num_trials=", "sweep.wait=", "sweep.dry_run=", "hydra.")  # may change when a search continues


@dataclass
class Job:
    """One run of a sweep, or one step of a benchmark.

    Attributes:
        number: Its place in the sweep, and the name of its run directory where it trains.
        overrides: What it is told on the command line.
        verb: What it does: "train", "sample", "evaluate" or "report".
        needs: Numbers of the jobs that must be done before; a report waits for their ends only. What samples or
            evaluates works in the run directory of the first.
        results: Files that are there when it is done, counted from its run directory; a training's status says more.
        job_id: What the cluster, or this machine, calls the process that ran it last; None before it is submitted.
        host: Where that process was started, for jobs on one machine.
        submissions: How often it was submitted.
        outcome: "failed", "died", "cancelled", "skipped" or "pruned" once it ended without success; None otherwise.
        reason: Why, in one line.
    """

    number: int
    overrides: list[str]
    verb: str = "train"
    needs: list[int] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    job_id: str | None = None
    host: str | None = None
    submissions: int = 0
    outcome: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class JobState:
    """How far a job is.

    Attributes:
        name: "waiting", "submitted", "running", "done", "failed", "interrupted", "died", "cancelled", "skipped" (a job
            that it needs did not succeed) or "pruned".
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
        words: What was typed after `vaebench train` or `vaebench benchmark`, without the flags.
        place: Where the jobs run: "here", "local" or "slurm".
        jobs: In order of their numbers.
        created: When the sweep was made.
        command: "train" or "benchmark".
        flags: Those of the command line that say where configurations lie, with their values.
    """

    path: Path
    words: list[str]
    place: str
    jobs: list[Job] = field(default_factory=list)
    created: str = field(default_factory=now)
    command: str = "train"
    flags: list[str] = field(default_factory=list)

    @property
    def file(self) -> Path:
        """The record."""
        return self.path / FILE

    @property
    def logs(self) -> Path:
        """The folder of what the jobs printed."""
        return self.path / ".jobs"

    def run(self, job: Job) -> Run:
        """The run directory that a job works in; of a report the whole sweep's."""
        if job.verb == "report":
            return Run(self.path)
        while job.verb != "train":
            job = self.jobs[job.needs[0]]
        return Run(self.path / str(job.number))

    def words_of(self, job: Job) -> list[str]:
        """The command line of a job, after `vaebench`."""
        place = self.run(job).path
        if job.verb == "train":
            return ["train", *job.overrides, f"hydra.run.dir={place}", *self.flags]
        if job.verb == "report":
            return ["report", *job.overrides, f"run={place}", f"output={place / 'report'}"]
        return [job.verb, *job.overrides, f"run={place}", *self.flags]

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
        if not os.path.lexists(folder / FILE):
            raise ValueError(f"sweep: '{folder}' is not a sweep directory: it has no {FILE}")
        content = read_json(folder / FILE)
        try:
            if not isinstance(content, dict):
                raise ValueError("expected a JSON object")
            if content["version"] != VERSION:
                raise ValueError(f"version {content['version']}, expected {VERSION}")
            words, created = content["words"], content["created"]
            if not (_are_texts(words) and isinstance(created, str)):
                raise ValueError("expected words and created as text")
            if any(word.startswith("-") for word in words):
                raise ValueError("expected overrides as words, got a flag")
            place, command = content["place"], content.get("command", "train")
            if place not in PLACES or command not in COMMANDS:
                raise ValueError(f"expected one of {', '.join(PLACES)} and one of {', '.join(COMMANDS)}")
            if not isinstance(content["jobs"], list) or len(content["jobs"]) > MAX_JOBS:
                raise ValueError(f"expected a list of at most {MAX_JOBS} jobs")
            flags = content.get("flags", [])
            if not _are_texts(flags) or len(flags) % 2 or not set(flags[::2]) <= FLAGS:
                raise ValueError(f"expected flags among {', '.join(sorted(FLAGS))}, each with a value")
            jobs = [_job(item, number, len(content["jobs"])) for number, item in enumerate(content["jobs"])]
            for job in jobs:
                if job.verb in ("sample", "evaluate") and jobs[job.needs[0]].verb == "report":
                    raise ValueError(f"job {job.number} works in no run")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"sweep: '{folder / FILE}' is damaged: {error}") from None
        return cls(folder, words, place, jobs, created, command, flags)

    @classmethod
    def newest(cls, outputs: str | os.PathLike[str] = "outputs") -> Sweep:
        """Return the sweep that was made last.

        Raises:
            ValueError: there is none.
        """
        found = [
            file.parent for place in ("multirun", "benchmark") for file in Path(outputs).glob(f"{place}/*/*/{FILE}")
        ]
        if not found:
            raise ValueError(
                f"sweep: found none under '{outputs}/multirun' or '{outputs}/benchmark'; name its directory"
            )
        return max((cls.open(folder) for folder in found), key=lambda sweep: sweep.created)

    def state(self, job: Job) -> JobState:
        """Tell how far a job is, from its run directory and from what became of its process."""
        if job.verb != "train":
            return self._state_of_step(job)
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
            # A cluster node's lock may be invisible on this machine.
            return JobState("running" if self.place == "slurm" else "died", epoch, step)
        if name in ("failed", "interrupted"):
            return JobState(str(name), epoch, step, reason)
        return JobState("waiting" if job.job_id is None else "submitted")

    def _state_of_step(self, job: Job) -> JobState:
        if job.outcome is not None:
            return JobState(job.outcome, reason=job.reason)
        place = self.run(job).path
        if all((place / result).is_file() for result in job.results):
            return JobState("done")
        return JobState("waiting" if job.job_id is None else "submitted")

    def refuse_links(self, jobs: Sequence[Job]) -> None:
        """Refuse a directory in which a job would write elsewhere.

        Raises:
            ValueError: a run, or the folder of logs, is a link.
        """
        for place in (self.logs, self.path / ".submitit", self.path / "report", *(self.run(job).path for job in jobs)):
            if place != self.path and place.is_symlink():
                raise ValueError(f"sweep: '{place}' is a link; expected a folder of the sweep's own: remove it first")

    def states(self) -> dict[int, JobState]:
        """The states of all jobs, by number."""
        return {job.number: self.state(job) for job in self.jobs}

    def unfinished(self) -> list[Job]:
        """The jobs that are neither done nor pruned, and what reports on any of them."""
        left = {job.number for job in self.jobs if self.state(job).name not in FINISHED}
        return [
            job for job in self.jobs if job.number in left or (job.verb == "report" and not left.isdisjoint(job.needs))
        ]


def continued(
    folder: Path, words: Sequence[str], place: str, steps: Sequence[Step | Sequence[str]], command: str = "train"
) -> Sweep:
    """Return the sweep of a directory: a new one, or the one that lies there with the jobs that are asked for now.

    Args:
        folder: `hydra.sweep.dir`.
        words: What was typed.
        place: Where the jobs run.
        steps: What is asked for; the overrides alone stand for a training.
        command: "train" or "benchmark".

    Raises:
        ValueError: the directory holds a sweep without some of these jobs, or other files.
    """
    wanted = [step if isinstance(step, Step) else Step(tuple(step)) for step in steps]
    if not os.path.lexists(folder / FILE):
        if folder.is_dir() and any(folder.iterdir()):
            raise ValueError(
                f"hydra.sweep.dir: '{folder}' is not empty and holds no sweep; choose a new directory, or an empty one"
            )
        sweep = Sweep(folder, list(words), place, command=command)
    else:
        sweep = Sweep.open(folder)
    given = {key: job.number for job, key in zip(sweep.jobs, _keys(sweep.jobs), strict=True)}
    asked = _keys(wanted)
    if sweep.command != command or not given.keys() <= set(asked):
        keys = _differing_keys([key[1] for key in given], [key[1] for key in asked])
        differing = ", ".join(keys) if sweep.command == command else f"the command, vaebench {sweep.command}"
        raise ValueError(
            f"hydra.sweep.dir: '{folder}' holds another sweep; it differs in {differing}; a sweep can only gain "
            "jobs, so choose another hydra.sweep.dir"
        )
    numbers, total = dict(given), len(sweep.jobs)
    for key in asked:
        if key not in numbers:
            numbers[key], total = total, total + 1
    for key, step in zip(asked, wanted, strict=True):
        needs = [numbers[asked[need]] for need in step.needs]
        if numbers[key] == len(sweep.jobs):
            sweep.jobs.append(Job(numbers[key], list(step.overrides), step.verb, needs, list(step.results)))
        else:
            sweep.jobs[numbers[key]].needs = needs  # so that a report also waits for added jobs
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


def _job(item: Mapping[str, Any], number: int, num_jobs: int) -> Job:
    job = Job(**item)
    optional = (job.job_id, job.host, job.outcome, job.reason)
    if job.number != number or not _are_texts(job.overrides) or type(job.submissions) is not int:
        raise ValueError(f"job {number} is not a number, a list of overrides and a count")
    if not all(value is None or isinstance(value, str) for value in optional):
        raise ValueError(f"job {number} holds something else than text")
    if any(word.startswith("-") for word in job.overrides):
        raise ValueError(f"job {number} holds a flag among its overrides")
    if job.job_id is not None and not re.fullmatch(r"\d+(_\d+)?", job.job_id, re.ASCII):
        raise ValueError(f"job {number} has no valid id")
    if job.verb not in VERBS or not isinstance(job.needs, list) or not _are_texts(job.results):
        raise ValueError(f"job {number} has no verb of {', '.join(VERBS)} with needs and results")
    if not all(type(need) is int and 0 <= need < num_jobs for need in job.needs):
        raise ValueError(f"job {number} needs jobs that there are not")
    if job.verb in ("sample", "evaluate") and not (job.needs and job.needs[0] < number):
        raise ValueError(f"job {number} works in no run")
    for result in job.results:
        if PurePosixPath(result).is_absolute() or ".." in PurePosixPath(result).parts:
            raise ValueError(f"job {number} has a result outside of its run")
    return job


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _keys(steps: Sequence[Step | Job]) -> list[tuple[str, frozenset[str], Any]]:
    """What tells one step from the others: its verb, its overrides, and the step in whose run it works."""
    keys: list[tuple[str, frozenset[str], Any]] = []
    for step in steps:
        within = keys[step.needs[0]] if step.verb in ("sample", "evaluate") else None
        keys.append((step.verb, frozenset(step.overrides), within))
    return keys


def _differing_keys(before: Sequence[frozenset[str]], after: Sequence[frozenset[str]]) -> list[str]:
    words = frozenset().union(*before) ^ frozenset().union(*after)
    keys = {word.partition("=")[0] for word in words}
    return sorted(keys) or ["the combinations of its values"]
