"""`vaebench train -m` and `vaebench benchmark` under Hydra: jobs from words, checked, recorded, run."""

from __future__ import annotations

import itertools
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from vaebench import factory
from vaebench.cli.benchmark import of_training, plan
from vaebench.cli.checks import examine, mistakes_here, refuse_mistakes
from vaebench.cli.composing import Composer
from vaebench.cli.errors import FAILED, JobError, SweepError
from vaebench.cli.job import CommandJob
from vaebench.commands.sweep import notice_of, show_jobs, show_study, show_unsuccessful, words_to_go_on
from vaebench.hardware.interpreter import run_module
from vaebench.hardware.signals import raise_interrupts
from vaebench.messages import counted
from vaebench.runs.regular import open_regular
from vaebench.sweeps import record
from vaebench.sweeps.base import BaseSweep
from vaebench.sweeps.grid import GridSweep
from vaebench.sweeps.local import LocalPool, visible_gpus
from vaebench.sweeps.optuna import OptunaSweep, entries_of, quiet
from vaebench.sweeps.pool import Pool
from vaebench.sweeps.record import Job, Sweep
from vaebench.sweeps.runner import catch_up, run_to_end, submit_all
from vaebench.sweeps.search import search
from vaebench.sweeps.slurm import SlurmPool
from vaebench.sweeps.space import Axis, word

BENCHMARK = "benchmark"
OF_THE_SWEEP = ("sweep", "hydra/launcher", "hydra.launcher", "hydra.sweep", "hydra/sweeper", "hydra.sweeper")
PROGRAM = run_module("vaebench")  # that runs the jobs of a sweep which nobody waits for
_log = logging.getLogger(__name__)


class TrainingSweeper(Sweeper):
    """Runs the jobs of a sweep, or the steps of a benchmark, and keeps their record.

    Args:
        params: Words as on the command line, which has the last word: what an experiment varies.
    """

    def __init__(self, params: Mapping[str, Any] | None = None) -> None:
        self._params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives."""
        self._context = hydra_context
        self._task = task_function
        self._config = config

    def sweep(self, arguments: list[str]) -> Any:
        """Run a sweep.

        Args:
            arguments: The words after the verb, without those of Hydra itself.

        Raises:
            ValueError: a mistake in the words, in a job's configuration, or in the sweep's directory.
        """
        raise_interrupts()  # imports are done; an interruption can break none
        compose = Composer(self._context, self._config)
        words = self._with_params(arguments, compose)
        kind: BaseSweep = GridSweep()  # for a stored configuration, which has none
        if "sweep" in self._config:
            kind = factory.sweep({"sweep": OmegaConf.to_container(self._config.sweep, resolve=True)})
        command = OmegaConf.select(self._config, "hydra.job.name")
        folder = Path(str(self._config.hydra.sweep.dir))
        place, pool = self._pool()
        if command == BENCHMARK:
            pool = pool or LocalPool(1, None, visible_gpus())
            place = "local" if place == "here" else place
            steps: Sequence[Any] = plan(kind, compose, words, examine)
        elif kind.is_adaptive:
            assert isinstance(kind, OptunaSweep)
            sweep = record.search_in(folder, arguments, place)
            sweep.flags = self._flags()
            return self._search(kind, compose, words, sweep, pool)
        else:
            steps = kind.jobs(compose.parse(words))
            jobs = [[number, job, compose(job)] for number, job in enumerate(steps)]
            refuse_mistakes(mistakes_here(jobs)) if pool is None else examine({"jobs": jobs})
        sweep = record.continued(folder, arguments, place, steps, "benchmark" if command == BENCHMARK else "train")
        sweep.flags = self._flags()
        if len(sweep.jobs) > kind.confirm_above:
            _log.warning("%s in this sweep", counted(len(sweep.jobs), "job"))
        if kind.dry_run:
            show_jobs(sweep)
            if pool is not None and (script := pool.describe(sweep, sweep.unfinished())):
                print(script)
            return None
        if pool is not None:
            catch_up(sweep, pool)
        pending = sweep.unfinished()
        sweep.save()
        if not pending:
            print(f"all {counted(len(sweep.jobs), 'job')} of '{folder}' are done")
            return None
        if pool is None:
            return self._run_here(sweep, pending)
        return self._run_elsewhere(kind, sweep, pool, pending)

    def _flags(self) -> list[str]:
        return list(getattr(self._task, "flags", []))

    def _with_params(self, arguments: Sequence[str], compose: Composer) -> list[str]:
        """The words of jobs: those of an experiment, and those that were typed; the configuration then holds both."""
        typed = {word.partition("=")[0].lstrip("+~") for word in arguments}
        named = [f"{key}={value}" for key, value in self._params.items() if key not in typed]
        if OmegaConf.select(self._config, "hydra.job.name") != BENCHMARK:  # only a benchmark goes on after training
            named = of_training(named)
        if named:
            single = [
                word
                for word, override in zip([*named, *arguments], compose.parse([*named, *arguments]), strict=True)
                if not override.is_sweep_override()
            ]
            self._config = compose.whole(single)
        return [word for word in [*named, *arguments] if not _is_of_the_sweep(word)]

    def _pool(self) -> tuple[str, Pool | None]:
        """Where the jobs run: None is this process, one job after the other, through Hydra's own launcher."""
        hardware = _plain(self._config.hardware)
        target = str(hardware.get("_target_", ""))
        launcher = _plain(self._config.hydra.launcher)
        named = str(launcher.get("_target_", ""))
        if target.endswith(".SubmititLocal"):
            return "local", _local(hardware)
        if target.endswith(".Slurm"):
            return "slurm", _slurm(hardware, hardware["max_requeues"])
        if named.endswith(".submitit_launcher.LocalLauncher"):
            return "local", _local({"array_parallelism": _cores(), **launcher})
        if named.endswith(".submitit_launcher.SlurmLauncher"):
            return "slurm", _slurm({**launcher, "max_requeues": launcher.get("max_num_timeout", 0)}, None)
        return "here", None

    def _run_here(self, sweep: Sweep, pending: Sequence[Job]) -> Sequence[JobReturn]:
        from hydra.core.plugins import Plugins

        launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self._context, task_function=self._task, config=self._config
        )
        returns: list[JobReturn] = []
        for _, run in itertools.groupby(enumerate(pending), lambda pair: pair[1].number - pair[0]):
            jobs = [job for _, job in run]  # consecutive numbers, which Hydra's launchers need
            returns += launcher.launch([job.overrides for job in jobs], initial_job_idx=jobs[0].number)
        unsuccessful = []
        for job, found in zip(pending, returns, strict=True):
            try:
                found.return_value  # noqa: B018 - raises what the job raised
                job.outcome = job.reason = None
            except JobError as error:
                job.outcome, job.reason = "failed", str(error.args[1])
                unsuccessful.append(job)
        sweep.save()
        if unsuccessful:
            show_unsuccessful(sweep, unsuccessful)
        for found in returns:
            found.return_value  # noqa: B018
        return returns

    def _run_elsewhere(self, kind: BaseSweep, sweep: Sweep, pool: Pool, pending: Sequence[Job]) -> None:
        if not kind.wait:
            if pool.capacity is None:
                submit_all(sweep, pool, pending)
            else:
                _detach(sweep)
            print(f"submitted {counted(len(pending), 'job')}; vaebench sweep status {sweep.path}")
            return
        print(f"sweep directory: {sweep.path}")
        try:
            unsuccessful = run_to_end(sweep, pool, pending, notice_of(sweep))
        except KeyboardInterrupt:
            if pool.capacity is None:
                print(f"the jobs go on; vaebench sweep status {sweep.path}, or cancel", file=sys.stderr)
            raise
        show_jobs(sweep)
        for report in (job for job in pending if job.verb == "report" and job.outcome is None):
            print(f"report: {sweep.run(report).path / report.results[0]}")
        if unsuccessful:
            show_unsuccessful(sweep, unsuccessful)
            sentence = (
                f"{len(unsuccessful)} of {counted(len(pending), 'job')} did not succeed; run them again with: "
                f"vaebench sweep resume {sweep.path}"
            )
            raise SweepError(FAILED, sentence)

    def _search(
        self, kind: OptunaSweep, compose: Composer, words: Sequence[str], sweep: Sweep, pool: Pool | None
    ) -> None:
        """Run a search: each trial is a job of its own process, so that one that dies is a failed trial."""
        entries = entries_of(compose.parse(words))
        ends = {
            tuple(entry if isinstance(entry, str) else word(entry, end(entry)) for entry in entries)
            for end in (_smallest, _largest)
        }
        jobs = [[number, list(job), compose(job)] for number, job in enumerate(sorted(ends))]
        examine({"jobs": jobs})
        if kind.num_trials > kind.confirm_above:
            _log.warning("%s in this sweep", counted(kind.num_trials, "trial"))
        if kind.dry_run:
            print("\n".join(map(str, entries)))
            return
        quiet()
        kind.study(sweep.path)  # refuse a study that cannot be opened before recording anything
        sweep.save()
        if not kind.wait:
            _detach(sweep)
            print(f"searching; vaebench sweep status {sweep.path}")
            return
        pool = pool or LocalPool(1, None, visible_gpus())
        parallelism = pool.capacity or int(self._config.hardware.get("array_parallelism") or 1)
        print(f"sweep directory: {sweep.path}")
        study = search(kind, sweep, pool, entries, notice_of(sweep), parallelism)
        show_jobs(sweep)
        show_study(kind, study, sweep)


def _smallest(space: Axis) -> Any:
    return space.choices[0] if space.choices is not None else int(space.low) if space.is_whole else space.low


def _largest(space: Axis) -> Any:
    return space.choices[-1] if space.choices is not None else int(space.high) if space.is_whole else space.high


def _plain(node: Any) -> dict[str, Any]:
    container = OmegaConf.to_container(node, resolve=True)
    assert isinstance(container, dict)
    return {str(name): value for name, value in container.items()}


def _local(options: dict[str, Any]) -> LocalPool:
    parallelism = int(options.get("array_parallelism") or 1)
    return LocalPool(parallelism, options.get("timeout_min"), visible_gpus())


def _slurm(options: dict[str, Any], max_requeues: int | None) -> SlurmPool:
    return SlurmPool(options, lambda words: CommandJob(tuple(words), max_requeues))


def _detach(sweep: Sweep) -> None:
    """Leave a process behind that runs the jobs."""
    sweep.refuse_links([])
    sweep.logs.mkdir(parents=True, exist_ok=True)
    words = [*words_to_go_on(sweep), "sweep.wait=true"]
    with open_regular(sweep.logs / "sweep.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND) as log:
        subprocess.Popen(
            [*PROGRAM, sweep.command, *words],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def _is_of_the_sweep(word: str) -> bool:
    key = word.partition("=")[0].lstrip("+~")
    return any(key == own or key.startswith(f"{own}.") for own in OF_THE_SWEEP)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
