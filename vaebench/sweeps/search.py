"""An adaptive sweep from the first trial to the last: trials are proposed, run, watched, pruned and told."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vaebench.sweeps.optuna import OptunaSweep, suggest
from vaebench.sweeps.pool import Outcome, Pool
from vaebench.sweeps.record import Job, Sweep
from vaebench.sweeps.runner import FIRST_PAUSE, PAUSE, Notice, settle
from vaebench.sweeps.space import Axis


@dataclass
class _Running:
    job: Job
    trial: Any
    stored: frozenset[int] = frozenset()  # epochs that an earlier command reported; optuna takes each once
    seen: set[int] = field(default_factory=set)
    is_pruned: bool = False


def search(
    kind: OptunaSweep,
    sweep: Sweep,
    pool: Pool,
    entries: Sequence[Axis | str],
    notice: Notice,
    parallelism: int,
    pause: float = PAUSE,
) -> Any:
    """Run trials until the study has as many as it wants; return the study.

    Args:
        kind: The settings.
        sweep: The record; each trial is the job of the same number.
        pool: Where trials run.
        entries: Fixed words and axes.
        notice: Called with each trial that ended.
        parallelism: Trials at a time.
        pause: Seconds between two looks.

    Raises:
        ValueError: the study cannot be opened.
        KeyboardInterrupt: an interruption; the same command continues.
    """
    import optuna

    study = kind.study(sweep.path)
    running: list[_Running] = []
    nap = min(FIRST_PAUSE, pause)
    left_over = [trial for trial in study.get_trials(deepcopy=False) if trial.state == optuna.trial.TrialState.RUNNING]
    try:
        while True:
            trials = study.get_trials(deepcopy=False)
            while len(running) < parallelism and (left_over or len(trials) < kind.num_trials):
                if left_over:  # from a stopped command: continue that run
                    found = left_over.pop(0)
                    trial, number = optuna.trial.Trial(study, found._trial_id), found.number
                    stored = frozenset(found.intermediate_values)
                else:
                    trial = study.ask()
                    number, stored = trial.number, frozenset()
                job = _job(sweep, number, suggest(trial, entries))
                if not pool.is_under_way(sweep, job):  # unless its process outlived that command
                    pool.submit(sweep, [job])
                sweep.save()
                running.append(_Running(job, trial, stored))
                trials = study.get_trials(deepcopy=False)
            if not running:
                return study
            for entry in list(running):
                _watch(kind, sweep, pool, entry)
                outcome = pool.outcome(sweep, entry.job)
                if outcome is not None:
                    running.remove(entry)
                    outcome = _tell(kind, study, sweep, entry, outcome)
                    settle(entry.job, outcome)
                    sweep.save()
                    notice(entry.job, outcome)
                    nap = min(FIRST_PAUSE, pause)
            if running:
                time.sleep(nap)
                nap = min(2 * nap, pause)
    except KeyboardInterrupt:
        if pool.capacity is not None:
            for entry in running:
                pool.cancel(sweep, entry.job)
            for entry in running:
                while pool.outcome(sweep, entry.job) is None:
                    time.sleep(pause)
        sweep.save()
        raise


def _job(sweep: Sweep, number: int, words: list[str]) -> Job:
    while len(sweep.jobs) <= number:  # a trial that was started just before the program was killed
        sweep.jobs.append(Job(len(sweep.jobs), []))
    sweep.jobs[number].overrides = words
    return sweep.jobs[number]


def _rows(sweep: Sweep, job: Job) -> list[dict[str, Any]]:
    """The validation rows that the run has written so far."""
    with contextlib.suppress(OSError, ValueError):
        rows = sweep.run(job).read_metrics()
        return [row for row in rows if isinstance(row, dict) and row.get("split") == "validation"]
    return []


def _watch(kind: OptunaSweep, sweep: Sweep, pool: Pool, entry: _Running) -> None:
    """Report intermediate values, and end a trial that the pruner gives up."""
    if kind.pruner is None or entry.is_pruned:
        return
    for row in _rows(sweep, entry.job):
        epoch, value = row.get("epoch"), row.get(kind.metrics[0])
        if isinstance(epoch, int) and epoch not in entry.seen and isinstance(value, (int, float)):
            entry.seen.add(epoch)
            if epoch not in entry.stored:
                entry.trial.report(float(value), epoch)
            if entry.trial.should_prune():
                entry.is_pruned = True
                pool.cancel(sweep, entry.job)
                return


def _tell(kind: OptunaSweep, study: Any, sweep: Sweep, entry: _Running, outcome: Outcome) -> Outcome:
    import optuna

    if entry.is_pruned and outcome.name != "done":
        study.tell(entry.trial, state=optuna.trial.TrialState.PRUNED)
        return Outcome("pruned", f"by {kind.pruner}, at epoch {max(entry.seen)}")
    values = _values(kind, _rows(sweep, entry.job)) if outcome.name == "done" else None
    if outcome.name != "done" or values is None:
        study.tell(entry.trial, state=optuna.trial.TrialState.FAIL)
        if outcome.name == "done":
            return Outcome("failed", f"its run has no finite validation value of {', '.join(kind.metrics)}")
        return outcome
    study.tell(entry.trial, values)
    return Outcome("done", ", ".join(f"{name} {value:.6g}" for name, value in zip(kind.metrics, values, strict=True)))


def _values(kind: OptunaSweep, rows: Sequence[dict[str, Any]]) -> list[float] | None:
    """The values of a finished trial, or None where one is missing or not finite."""
    if len(kind.metrics) == 1:
        name = kind.metrics[0]
        found = [float(row[name]) for row in rows if isinstance(row.get(name), (int, float))]
        finite = [value for value in found if math.isfinite(value)]
        if not finite or len(finite) < len(found):
            return None
        return [min(finite) if kind.directions[0] == "minimize" else max(finite)]
    last = rows[-1] if rows else {}
    values = [last.get(name) for name in kind.metrics]
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
        return None
    return [float(value) for value in values]  # type: ignore[arg-type]
