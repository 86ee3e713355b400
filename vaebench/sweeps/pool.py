"""Where jobs run: submitted, asked after, cancelled. One interface for this machine and for a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vaebench.sweeps.record import Job, Sweep


@dataclass(frozen=True)
class Outcome:
    """How a job's process ended.

    Attributes:
        name: "done", or a reason in one word: "failed", "interrupted", "died", "cancelled", "skipped".
        reason: In one line, or None.
    """

    name: str
    reason: str | None = None


class Pool(Protocol):
    """Runs jobs.

    Attributes:
        capacity: How many jobs it takes at a time; None takes all and queues them itself.
    """

    capacity: int | None

    def submit(self, sweep: Sweep, jobs: Sequence[Job]) -> None:
        """Start jobs or queue them; sets `job_id`, `host` and `submissions` of each.

        A pool that queues them itself also holds each back until those that it needs are done.
        """
        ...

    def is_under_way(self, sweep: Sweep, job: Job) -> bool:
        """Whether an earlier command submitted the job, and it is still queued or runs."""
        ...

    def outcome(self, sweep: Sweep, job: Job) -> Outcome | None:
        """Return how a submitted job ended, or None while it may still go on."""
        ...

    def cancel(self, sweep: Sweep, job: Job) -> None:
        """Ask a submitted job to save and end; no error if it has ended."""
        ...

    def describe(self, sweep: Sweep, jobs: Sequence[Job]) -> str:
        """Return what would be submitted, for a dry run; "" where the table of jobs says it all."""
        ...


def last_line(text: str) -> str | None:
    """Return the last line that holds anything, without its terminal escapes, or None."""
    printable = "".join(character if character.isprintable() or character == "\n" else " " for character in text)
    lines = [line.strip() for line in printable.splitlines() if line.strip()]
    return lines[-1][:300] if lines else None
