"""One job of a cluster: a command line, in a process that the cluster started."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from vaebench.hardware.signals import SIGNALS
from vaebench.messages import counted
from vaebench.runs.provenance import num_requeues
from vaebench.sweeps.local import JOB


class UnsuccessfulJobError(RuntimeError):
    """The command of a job ended with another exit code than 0."""


@dataclass(frozen=True)
class CommandJob:
    """A command line as a function that submitit pickles, calls, and calls again after a requeue.

    Args:
        words: The words after `vaebench`. Its run directory is among them, so that a second call continues it.
        max_requeues: How often the job may come back from the queue, whatever put it there; None for any number.
    """

    words: tuple[str, ...]
    max_requeues: int | None = None

    def __call__(self) -> None:
        """Run the command.

        Raises:
            UnsuccessfulJobError: it failed, or came back too often; the cluster then counts the job as failed.
            SystemExit: the job is in the queue again, and leaves without a result.
        """
        from vaebench.cli.main import main

        self._refuse_requeue(num_requeues(os.environ))
        os.environ[JOB] = "cluster"
        join_process_group(os.environ)
        with _exits_noted() as exits:
            code = main(list(self.words))
        if exits:
            raise exits[0]
        if code != 0:
            raise UnsuccessfulJobError(f"exit code {code}: vaebench {' '.join(self.words)}")

    def _refuse_requeue(self, count: int) -> None:
        if self.max_requeues is not None and count > self.max_requeues:
            sentence = (
                f"put back into the queue {counted(count, 'time')}, more than hardware.max_requeues={self.max_requeues}"
            )
            print(f"vaebench {self.words[0]}: {sentence}", file=sys.stderr)
            raise UnsuccessfulJobError(sentence)

    def checkpoint(self) -> Any:
        """What submitit puts back into the queue before the time limit: the same command, which resumes its run."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


@contextmanager
def _exits_noted() -> Iterator[list[SystemExit]]:
    """Context that notes when a handler of signals leaves the program, as submitit's does once a job is requeued.

    The command takes such an exit for its own and returns a code; the job would then be told as failed.
    """
    exits: list[SystemExit] = []
    former: dict[int, Any] = {}

    def handle(signum: int, frame: FrameType | None) -> None:
        try:
            former[signum](signum, frame)
        except SystemExit as leaving:
            exits.append(leaving)
            raise

    for signum in SIGNALS:
        handler = signal.getsignal(signum)
        if callable(handler) and handler is not signal.default_int_handler:
            former[signum] = handler
            signal.signal(signum, handle)
    try:
        yield exits
    finally:
        for signum, handler in former.items():
            signal.signal(signum, handler)


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
