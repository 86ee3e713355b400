"""What one job of a cluster runs: a command line, in a process that the cluster started."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from vaebench.sweeps.local import JOB


class UnsuccessfulJobError(RuntimeError):
    """The command of a job ended with another exit code than 0."""


@dataclass(frozen=True)
class CommandJob:
    """A command line as a function that submitit pickles, calls, and calls again after a requeue.

    Args:
        words: The words after `vaebench`. Its run directory is among them, so that a second call continues it.
    """

    words: tuple[str, ...]

    def __call__(self) -> None:
        """Run the command.

        Raises:
            UnsuccessfulJobError: it failed; the cluster then counts the job as failed.
        """
        from vaebench.cli.main import main

        os.environ[JOB] = "cluster"
        join_process_group(os.environ)
        code = main(list(self.words))
        if code != 0:
            raise UnsuccessfulJobError(f"exit code {code}: vaebench {' '.join(self.words)}")

    def checkpoint(self) -> Any:
        """What submitit puts back into the queue before the time limit: the same command, which resumes its run."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def join_process_group(environment: Any) -> None:
    """Give the processes of one Slurm job step the names that torchrun gives, where there are several."""
    size = int(environment.get("SLURM_NTASKS", 1))
    if size == 1 or "RANK" in environment:
        return
    import submitit

    job = submitit.JobEnvironment()
    number = int(environment.get("SLURM_ARRAY_JOB_ID", environment["SLURM_JOB_ID"]))
    environment.update(
        {
            "RANK": environment["SLURM_PROCID"],
            "LOCAL_RANK": environment["SLURM_LOCALID"],
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(max(1, size // int(environment.get("SLURM_JOB_NUM_NODES", 1)))),
            "MASTER_ADDR": job.hostnames[0],
            "MASTER_PORT": str(20_000 + (number + int(environment.get("SLURM_ARRAY_TASK_ID", 0))) % 20_000),
        }
    )
