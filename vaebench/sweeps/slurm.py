"""Jobs of a Slurm cluster, through submitit."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vaebench.hardware.interpreter import python
from vaebench.sweeps.accounting import ENDED, UnknownError, accounted, cancel, end_of, queued, result_of
from vaebench.sweeps.pool import Outcome, last_line
from vaebench.sweeps.record import VERBS, Job, Sweep

INSTALL = "pip install 'vaebench[cluster]'"
SETTLE = 10.0  # seconds until a shared file system shows the result of a finished job
OPTIONS = ("partition", "account", "qos", "constraint", "gpus_per_node", "cpus_per_task", "mem_gb", "setup")


class SlurmPool:
    """Jobs of a Slurm cluster.

    Args:
        options: Values of `vaebench.hardware.cluster.Slurm` by name.
        call: Makes the function that a job calls, from its words; it must pickle.

    Raises:
        ValueError: submitit or Slurm is missing.
    """

    capacity: int | None = None

    def __init__(self, options: Mapping[str, Any], call: Callable[[list[str]], Callable[[], Any]]) -> None:
        try:
            import submitit
        except ImportError:
            raise ValueError(f"hardware=slurm needs the package submitit; install it: {INSTALL}") from None
        self._submitit = submitit
        self.options = dict(options)
        self.call = call
        self._queue: dict[str, str] | None = None  # None while the controller does not answer
        self._asked, self._why = -1e9, ""
        self._left: dict[str, float] = {}

    def submit(self, sweep: Sweep, jobs: Sequence[Job]) -> None:
        """Submit the jobs as arrays: one of those that need nothing, and one for each set of jobs to wait for.

        Raises:
            ValueError: Slurm refuses them, in its own words.
        """
        sweep.refuse_links(jobs)
        if shutil.which("sbatch") is None:
            raise ValueError(
                "hardware=slurm: there is no Slurm on this machine (no sbatch); choose hardware=submitit_local"
            )
        for group in _arrays(jobs):
            self._submit_array(sweep, group, {job.number for job in jobs})

    def _submit_array(self, sweep: Sweep, jobs: Sequence[Job], submitted_now: set[int]) -> None:
        waits_for = [
            need
            for number in jobs[0].needs
            if (need := sweep.jobs[number]).job_id is not None
            and (number in submitted_now or self.is_under_way(sweep, need))
        ]
        try:
            executor = self._executor(sweep, jobs[0].verb, [str(need.job_id) for need in waits_for])
            # submitit repeats what sbatch says, which the error holds, too
            with contextlib.redirect_stderr(io.StringIO()), executor.batch():
                submitted = [executor.submit(self.call(sweep.words_of(job))) for job in jobs]
        except (
            subprocess.CalledProcessError,
            self._submitit.core.utils.FailedJobError,
            RuntimeError,
            ValueError,
        ) as error:
            raise ValueError(f"hardware=slurm: {_words_of_slurm(error)}") from None
        for job, entry in zip(jobs, submitted, strict=True):
            job.job_id, job.submissions = entry.job_id, job.submissions + 1
            job.outcome = job.reason = None

    def is_under_way(self, sweep: Sweep, job: Job) -> bool:
        """Whether an earlier command submitted the job, and the queue still lists it.

        Raises:
            ValueError: Slurm does not say: the job might then be run twice.
        """
        if job.job_id is None or job.outcome is not None or result_of(sweep, job).is_file():
            return False
        if not self._ask(sweep):
            raise ValueError(f"hardware=slurm: cannot tell which jobs are under way: {self._why}")
        return self._is_queued(job)

    def outcome(self, sweep: Sweep, job: Job) -> Outcome | None:
        """Read the job's result, or ask the queue whether it is still there."""
        if job.job_id is None:
            return None
        if result_of(sweep, job).is_file():
            return end_of(sweep, job, None)
        if not self._ask(sweep) or self._is_queued(job):  # a controller that is restarted loses no job
            self._left.pop(job.job_id, None)
            return None
        left = self._left.setdefault(job.job_id, time.monotonic())
        if time.monotonic() - left < SETTLE:
            return None
        state = (self._queue or {}).get(job.job_id)
        if state is None:
            with contextlib.suppress(UnknownError):  # many clusters keep no books
                state = accounted([job.job_id]).get(job.job_id)
        return end_of(sweep, job, state) or Outcome("done")

    def cancel(self, sweep: Sweep, job: Job) -> None:
        """Ask Slurm to end the job."""
        if job.job_id is not None:
            with contextlib.suppress(UnknownError):
                cancel([job.job_id])

    def describe(self, sweep: Sweep, jobs: Sequence[Job]) -> str:
        """The scripts that sbatch would get, one for each kind of job."""
        from submitit.slurm.slurm import _make_sbatch_string

        texts, shown = [], set()
        for group in _arrays(jobs):
            first = group[0]
            if first.verb in shown:
                continue
            shown.add(first.verb)
            needs = [f"<id of job {number}>" for number in first.needs]
            text: str = _make_sbatch_string(
                command=f"vaebench {first.verb} …",
                folder=sweep.path / ".submitit" / "%j",
                map_count=len(group) if len(group) > 1 else None,
                **self._executor(sweep, first.verb, needs[:5], check=False).parameters,
            )
            texts.append(text)
        return "\n".join(texts)

    def _executor(self, sweep: Sweep, verb: str = "train", needs: Sequence[str] = (), check: bool = True) -> Any:
        kind = self._submitit.SlurmExecutor
        folder = sweep.path / ".submitit" / "%j"
        if not check:  # a dry run needs no Slurm
            kind = type("DryExecutor", (kind,), {"affinity": classmethod(lambda cls: 1)})
        executor = kind(folder=folder, max_num_timeout=self.options["max_requeues"], python=shlex.join(python()))
        named = {name: self.options[name] for name in OPTIONS if self.options.get(name) is not None}
        if "mem_gb" in named:
            named["mem"] = f"{round(1024 * named.pop('mem_gb'))}M"
        is_training = verb == "train"  # only training runs on several processes
        executor.update_parameters(
            **named,
            job_name="vaebench",
            time=self.options["timeout_min"],
            nodes=self.options["nodes"] if is_training else 1,
            ntasks_per_node=self.options["tasks_per_node"] if is_training else 1,
            array_parallelism=self.options["array_parallelism"],
            signal_delay_s=self.options["signal_delay_s"],
            additional_parameters=_with_dependency(self.options.get("additional_parameters") or {}, verb, needs),
        )
        return executor

    def _ask(self, sweep: Sweep) -> bool:
        """Ask the queue for all jobs of the sweep, at most once a second; return whether it answered."""
        if time.monotonic() - self._asked > 1.0:
            try:
                found = queued([job.job_id for job in sweep.jobs if job.job_id is not None])
                self._queue = {job_id: state for job_id, (state, _) in found.items()}
            except UnknownError as error:
                self._queue, self._why = None, str(error)
            self._asked = time.monotonic()
        return self._queue is not None

    def _is_queued(self, job: Job) -> bool:
        state = (self._queue or {}).get(str(job.job_id))
        return state is not None and state not in ENDED


def _arrays(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs that can be one array: of one kind, and waiting for the same others. Whatever is waited for comes before."""
    groups: dict[tuple[str, tuple[int, ...]], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.verb, tuple(job.needs)), []).append(job)
    return sorted(groups.values(), key=lambda group: VERBS.index(group[0].verb))


def _with_dependency(parameters: Mapping[str, Any], verb: str, needs: Sequence[str]) -> dict[str, Any]:
    """The other options of sbatch, and what to wait for: success, or for a report any end."""
    if not needs:
        return dict(parameters)
    own = "afterok"
    if verb == "report":  # waits for all jobs, so for whole arrays
        own, needs = "afterany", list(dict.fromkeys(need.partition("_")[0] for need in needs))
    given = [str(parameters["dependency"])] if "dependency" in parameters else []
    return {**parameters, "dependency": ",".join([*given, f"{own}:{':'.join(needs)}"]), "kill-on-invalid-dep": "yes"}


def _words_of_slurm(error: BaseException) -> str:
    text = getattr(error, "stderr", None) or str(error)
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    found = re.search(r"(?:sbatch|srun): error: (.*)", text)
    sentence = found[1] if found else (last_line(text) or type(error).__name__)
    return sentence.strip()
