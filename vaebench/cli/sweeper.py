"""`vaebench train -m` under Hydra: jobs from the words, checked, recorded, and run here or elsewhere."""

from __future__ import annotations

import itertools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from vaebench import factory
from vaebench.cli.errors import FAILED, JobError
from vaebench.cli.job import CommandJob
from vaebench.commands.sweep import notice_of, show_jobs, show_study, show_unsuccessful
from vaebench.messages import counted
from vaebench.sweeps import record
from vaebench.sweeps.base import BaseSweep
from vaebench.sweeps.grid import GridSweep
from vaebench.sweeps.local import LocalPool, visible_gpus
from vaebench.sweeps.optuna import OptunaSweep, entries_of, quiet
from vaebench.sweeps.pool import Pool
from vaebench.sweeps.record import Job, Sweep
from vaebench.sweeps.runner import run_to_end, submit_all
from vaebench.sweeps.search import search
from vaebench.sweeps.slurm import SlurmPool
from vaebench.sweeps.space import Axis, word

OF_THE_SWEEP = ("sweep", "hydra/launcher", "hydra.launcher", "hydra.sweep", "hydra/sweeper", "hydra.sweeper")
_log = logging.getLogger(__name__)


class TrainingSweeper(Sweeper):
    """Runs the jobs of a sweep and keeps its record."""

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
        kind: BaseSweep = GridSweep()  # where a stored configuration is repeated, which has none
        if "sweep" in self._config:
            kind = factory.sweep({"sweep": OmegaConf.to_container(self._config.sweep, resolve=True)})
        words = [word for word in arguments if not _is_of_the_sweep(word)]
        parser = OverridesParser.create(config_loader=self._context.config_loader)
        overrides = parser.parse_overrides(words)
        folder = Path(str(self._config.hydra.sweep.dir))
        place, pool = self._pool()
        if kind.is_adaptive:
            assert isinstance(kind, OptunaSweep)
            return self._search(kind, overrides, record.search_in(folder, arguments, place), pool)
        sweep = record.continued(folder, arguments, place, kind.jobs(overrides))
        self._check(sweep.jobs, here=pool is None)
        if len(sweep.jobs) > kind.confirm_above:
            _log.warning("%s in this sweep", counted(len(sweep.jobs), "job"))
        if kind.dry_run:
            show_jobs(sweep)
            if pool is not None and (script := pool.describe(sweep, sweep.unfinished())):
                print(script)
            return None
        pending = sweep.unfinished()
        sweep.save()
        if not pending:
            print(f"all {counted(len(sweep.jobs), 'job')} of '{folder}' are done")
            return None
        if pool is None:
            return self._run_here(sweep, pending)
        return self._run_elsewhere(kind, sweep, pool, pending)

    def _pool(self) -> tuple[str, Pool | None]:
        """Where the jobs run: None is this process, one job after the other, through Hydra's own launcher."""
        hardware = _plain(self._config.hardware)
        target = str(hardware.get("_target_", ""))
        launcher = _plain(self._config.hydra.launcher)
        named = str(launcher.get("_target_", ""))
        if target.endswith(".SubmititLocal"):
            return "local", _local(hardware)
        if target.endswith(".Slurm"):
            return "slurm", SlurmPool(hardware, lambda words: CommandJob(tuple(words)))
        if named.endswith(".submitit_launcher.LocalLauncher"):
            return "local", _local({"array_parallelism": _cores(), **launcher})
        if named.endswith(".submitit_launcher.SlurmLauncher"):
            options = {**launcher, "max_requeues": launcher.get("max_num_timeout", 0)}
            return "slurm", SlurmPool(options, lambda words: CommandJob(tuple(words)))
        return "here", None

    def _check(self, jobs: Sequence[Job], *, here: bool) -> None:
        """Compose and check every job's configuration before the first one starts.

        The check needs the classes, and so torch: where the jobs run elsewhere, so does the check.
        """
        trees = []
        for job in jobs:
            composed = self._compose(job)
            trees.append([job.number, job.overrides, factory.plain(composed)])
        if here:
            _refuse(_mistakes(trees))
            return
        done = subprocess.run(
            [sys.executable, "-m", "vaebench.sweeps.check"], input=json.dumps(trees), capture_output=True, text=True
        )
        if done.returncode != 0:
            raise RuntimeError(f"the jobs could not be checked: {done.stderr.strip()[-500:]}")
        _refuse(json.loads(done.stdout))

    def _compose(self, job: Job) -> DictConfig:
        config = self._context.config_loader.load_sweep_config(self._config, job.overrides)
        tree = OmegaConf.masked_copy(config, [str(key) for key in config if key not in ("hydra", "sweep", "resume")])
        assert isinstance(tree, DictConfig)
        return tree

    def _run_here(self, sweep: Sweep, pending: Sequence[Job]) -> Sequence[JobReturn]:
        from hydra.core.plugins import Plugins

        launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self._context, task_function=self._task, config=self._config
        )
        returns: list[JobReturn] = []
        for _, run in itertools.groupby(enumerate(pending), lambda pair: pair[1].number - pair[0]):
            jobs = [job for _, job in run]  # numbers that follow each other, as Hydra counts them
            returns += launcher.launch([job.overrides for job in jobs], initial_job_idx=jobs[0].number)
        for found in returns:
            found.return_value  # noqa: B018 - raises what the job raised
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
        if unsuccessful:
            show_unsuccessful(sweep, unsuccessful)
            sentence = (
                f"{len(unsuccessful)} of {counted(len(pending), 'job')} did not succeed; run them again with: "
                f"vaebench sweep resume {sweep.path}"
            )
            print(f"vaebench train: {sentence}", file=sys.stderr)
            raise JobError(FAILED, sentence)

    def _search(self, kind: OptunaSweep, overrides: Any, sweep: Sweep, pool: Pool | None) -> None:
        """Run a search: each trial is a job of its own process, so that one that dies is a failed trial."""
        entries = entries_of(overrides)
        first = [entry if isinstance(entry, str) else word(entry, _smallest(entry)) for entry in entries]
        self._check([Job(0, first)], here=False)
        if kind.num_trials > kind.confirm_above:
            _log.warning("%s in this sweep", counted(kind.num_trials, "trial"))
        if kind.dry_run:
            print("\n".join(entry if isinstance(entry, str) else str(entry) for entry in entries))
            return
        quiet()
        kind.study(sweep.path)  # what cannot be opened is refused before anything is recorded
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


def _plain(node: Any) -> dict[str, Any]:
    container = OmegaConf.to_container(node, resolve=True)
    assert isinstance(container, dict)
    return {str(name): value for name, value in container.items()}


def _local(options: dict[str, Any]) -> LocalPool:
    parallelism = int(options.get("array_parallelism") or 1)
    return LocalPool(parallelism, options.get("timeout_min"), visible_gpus())


def _detach(sweep: Sweep) -> None:
    """Leave a process behind that runs the jobs."""
    sweep.logs.mkdir(parents=True, exist_ok=True)
    with open(sweep.logs / "sweep.log", "ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "vaebench", "sweep", "resume", str(sweep.path)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def _mistakes(trees: Sequence[Any]) -> list[list[Any]]:
    from vaebench.sweeps.check import mistakes

    return mistakes(trees)


def _refuse(found: Sequence[Sequence[Any]]) -> None:
    if found:
        number, overrides, sentence = found[0]
        more = f" (and {counted(len(found) - 1, 'more job')})" if len(found) > 1 else ""
        raise ValueError(f"job {number} ({' '.join(overrides)}): {sentence}{more}")


def _is_of_the_sweep(word: str) -> bool:
    key = word.partition("=")[0].lstrip("+~")
    return any(key == own or key.startswith(f"{own}.") for own in OF_THE_SWEEP)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
