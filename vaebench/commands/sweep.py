"""`vaebench sweep`: status, resume, cancel and logs of a sweep, from its record; needs neither Hydra nor torch."""

from __future__ import annotations

import contextlib
import functools
import shlex
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vaebench.commands.console import show_table
from vaebench.messages import counted, did_you_mean
from vaebench.runs.files import write_atomic
from vaebench.sweeps import accounting, local
from vaebench.sweeps.pool import Outcome
from vaebench.sweeps.record import Job, JobState, Sweep

ACTIONS = {
    "status": "Show how far the jobs are.",
    "watch": "Show the table again whenever it changes, until no job is under way.",
    "resume": "Run what is missing, failed or interrupted again, in the same directories.",
    "cancel": "Ask the jobs that are under way to save and end.",
    "logs": "Show what the jobs printed last.",
}
OF_LAUNCHERS = ("hydra/launcher", "hydra.launcher", "hydra.sweep.dir")
RUNS_PROGRAMS = (
    "hardware.setup", "hardware.additional_parameters", "hydra.launcher.setup", "hydra.launcher.additional_parameters",
    "hydra.launcher.python", "hydra.launcher._target_", "hydra.launcher.srun_args",
)  # fmt: skip
BETWEEN_LOOKS = 2.0  # seconds
FEW = 6  # longest list of jobs to name one by one
USAGE = (
    "usage: vaebench sweep status|watch|resume|cancel|logs [DIRECTORY]\n\n"
    + "".join(f"  {name:<8}{line}\n" for name, line in ACTIONS.items())
    + "\nDIRECTORY is the sweep's (hydra.sweep.dir); without it the newest under outputs/multirun.\n"
)


def main(words: Sequence[str]) -> list[str] | None:
    """Answer one command.

    Args:
        words: An action, and a directory.

    Returns: for `resume` the verb and the words that go on; otherwise None.

    Raises:
        ValueError: an unknown action, or a directory that holds no sweep.
    """
    if not words or set(words) & {"-h", "--help"}:
        print(USAGE, end="")
        return None
    action, *rest = words
    if action not in ACTIONS:
        raise ValueError(f"there is no action '{action}'{did_you_mean(action, ACTIONS)}")
    if len(rest) > 1:
        raise ValueError(f"expected one directory, got {len(rest)}: {' '.join(rest)}")
    sweep = Sweep.open(rest[0]) if rest else Sweep.newest()
    if action == "resume":
        _refuse_programs(sweep)
        return [sweep.command, *words_to_go_on(sweep)]
    {"status": _show_status, "watch": _watch, "cancel": _cancel, "logs": _show_logs}[action](sweep)
    return None


def words_to_go_on(sweep: Sweep) -> list[str]:
    """The words after the verb with which a sweep goes on."""
    typed_anew = ("hydra.sweep.dir=", "sweep.wait=", "sweep.dry_run=")
    kept = [word for word in sweep.words if not word.startswith(typed_anew)]
    return ["-m", *kept, f"hydra.sweep.dir='{sweep.path}'", *sweep.flags]


def _refuse_programs(sweep: Sweep) -> None:
    """Refuse words that make another program run: the record may be a stranger's, and its owner can type them."""
    for word in [*sweep.words, *sweep.flags[:1]]:
        key = word.partition("=")[0].lstrip("+~")
        is_hydras = key.split(".")[0].split("/")[0] == "hydra" and not key.startswith(OF_LAUNCHERS)
        if is_hydras or word in sweep.flags or key.startswith(RUNS_PROGRAMS):
            command = shlex.join(["vaebench", sweep.command, *words_to_go_on(sweep)])
            raise ValueError(f"'{word}' can start other programs; if the sweep is yours, type its command: {command}")


def show_jobs(sweep: Sweep, states: Mapping[int, JobState] | None = None) -> None:
    """Print the table of jobs, and a line that counts them by state.

    Args:
        sweep: The sweep.
        states: Of its jobs; without them those that the record and the files tell.
    """
    states = sweep.states() if states is None else states
    trainings = [set(job.overrides) for job in sweep.jobs if job.verb == "train"]
    common = set.intersection(*trainings) if len(trainings) > 1 else set()
    has_steps = sweep.command != "train"
    rows = []
    for job in sweep.jobs:
        state = states[job.number]
        own = " ".join(word for word in job.overrides if word not in common or job.verb != "train")
        after = " ".join(map(str, job.needs)) if len(job.needs) < FEW else f"{len(job.needs)} others"
        row = [str(job.number), job.verb, own, after, state.name, _text(state.epoch), job.job_id or "", state.reason]
        rows.append([_text(entry) for place, entry in enumerate(row) if has_steps or place not in (1, 3)])
    columns = ["job", "verb", "overrides", "after", "state", "epoch", "id", "reason"]
    show_table(
        f"sweep {sweep.path}" + (f": {' '.join(sorted(common))}" if common else ""),
        [name for place, name in enumerate(columns) if has_steps or place not in (1, 3)],
        rows,
    )
    counts = Counter(state.name for state in states.values())
    print(", ".join(f"{number} {name}" for name, number in counts.most_common()))


def describe(sweep: Sweep, job: Job) -> str:
    """What a job does, in words of the command line."""
    if job.verb == "train":
        return " ".join(job.overrides)
    return " ".join([job.verb, *job.overrides, f"run={sweep.run(job).path}"])


def show_unsuccessful(sweep: Sweep, jobs: Sequence[Job]) -> None:
    """Print which jobs did not succeed, why, and where their logs lie."""
    rows = [
        (str(job.number), describe(sweep, job), job.outcome or "", job.reason or "", _place_of_log(sweep, job))
        for job in sorted(jobs, key=lambda job: job.number)
    ]
    show_table("jobs that did not succeed", ("job", "overrides", "state", "reason", "log"), rows, on_stderr=True)


def show_study(kind: Any, study: Any, sweep: Sweep) -> None:
    """Print the best trials as command lines and the importance of keys, and draw the history beside the record."""
    import optuna

    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state == optuna.trial.TrialState.COMPLETE]
    if not complete:
        print("no trial was completed")
        return
    for trial in study.best_trials[:5]:
        values = ", ".join(f"{name} {value:.6g}" for name, value in zip(kind.metrics, trial.values, strict=True))
        print(f"best: trial {trial.number}, {values}")
        words = [word for word in sweep.jobs[trial.number].overrides if not word.startswith("hardware")]
        print(f"    vaebench train {' '.join(map(shlex.quote, words))}")
    keys = {key for trial in complete for key in trial.params}
    with warnings.catch_warnings(), contextlib.suppress(RuntimeError, ValueError, ImportError):
        warnings.simplefilter("ignore")  # optuna calls its plots experimental
        if len(kind.metrics) == 1 and len(complete) > 1 and len(keys) > 1:
            for key, share in optuna.importance.get_param_importances(study).items():
                print(f"importance of {key}: {share:.2f}")
        _draw(study, sweep, len(kind.metrics))


def _draw(study: Any, sweep: Sweep, num_metrics: int) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from optuna.visualization import matplotlib as plots

    if num_metrics > 1:
        drawings = {"pareto.png": plots.plot_pareto_front(study)} if num_metrics < 4 else {}
    else:
        drawings = {
            "history.png": plots.plot_optimization_history(study),
            "parallel_coordinates.png": plots.plot_parallel_coordinate(study),
        }
    for name, axes in drawings.items():
        figure = axes.figure
        write_atomic(sweep.path / name, functools.partial(figure.savefig, dpi=120, bbox_inches="tight"))
        print(f"picture: {sweep.path / name}")


def notice_of(sweep: Sweep) -> Callable[[Job, Outcome], None]:
    """Return what tells of each job that ends, with the number of those that are left."""
    started, ended = time.monotonic(), [0]

    def notice(job: Job, outcome: Outcome) -> None:
        ended[0] += 1
        reason = f": {outcome.reason}" if outcome.reason else ""
        seconds = time.monotonic() - started
        print(
            f"job {job.number} ({describe(sweep, job)}) {outcome.name}{reason} [{ended[0]} ended, {seconds:.0f} s]",
            file=sys.stderr,
            flush=True,
        )

    return notice


def _states(sweep: Sweep) -> dict[int, JobState]:
    """The states of all jobs: Slurm is asked for what their files leave open."""
    if sweep.place != "slurm":
        return sweep.states()
    states, problem = accounting.states_of(sweep)
    if problem is not None:
        print(f"Slurm was not asked: {problem}; the states are what the jobs last wrote", file=sys.stderr)
    return states


def _show_status(sweep: Sweep) -> None:
    show_jobs(sweep, _states(sweep))


def _watch(sweep: Sweep) -> None:
    shown: dict[int, JobState] = {}
    idle = 0  # looks that found no job under way: between two jobs there may be one
    while idle < 2:
        sweep = Sweep.open(sweep.path)
        states = _states(sweep)
        if states != shown:
            if sys.stdout.isatty():
                print("\x1b[H\x1b[J", end="")  # to the upper left corner, and clear what is below
            show_jobs(sweep, states)
            sys.stdout.flush()
        shown = states
        idle = 0 if {state.name for state in states.values()} & {"running", "submitted"} else idle + 1
        if idle < 2:
            time.sleep(BETWEEN_LOOKS)


def _cancel(sweep: Sweep) -> None:
    pool, states = local.LocalPool(1), _states(sweep)
    running = [job for job in sweep.jobs if states[job.number].name in ("running", "submitted") and job.job_id]
    if sweep.place == "slurm":
        accounting.cancel([str(job.job_id) for job in running])
    else:
        for job in running:
            pool.cancel(sweep, job)
    print(f"asked {counted(len(running), 'job')} to save and end")


def _show_logs(sweep: Sweep) -> None:
    for job in sweep.jobs:
        log = _log_of(sweep, job)
        if log is not None and log.is_file():
            print(f"== job {job.number} ({describe(sweep, job)}): {log}")
            print("\n".join(_printable(local.read_end(log)).splitlines()[-10:]))


def _log_of(sweep: Sweep, job: Job) -> Path | None:
    return accounting.log_of(sweep, job) if sweep.place == "slurm" else local.log_of(sweep, job)


def _place_of_log(sweep: Sweep, job: Job) -> str:
    logs = [sweep.run(job).log if sweep.place == "here" else _log_of(sweep, job)]
    return next((str(log) for log in logs if log is not None and log.is_file()), "no log")


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable() or character == "\n")


def _text(value: object) -> str:
    return "" if value is None else str(value)
