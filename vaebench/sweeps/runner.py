"""Jobs from the first submission to the last outcome; the record is on the disk after every change."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from vaebench.sweeps.pool import Outcome, Pool
from vaebench.sweeps.record import Job, Sweep

PAUSE = 0.5  # seconds between two looks at the jobs

Notice = Callable[[Job, Outcome], None]


def submit_all(sweep: Sweep, pool: Pool, jobs: Sequence[Job]) -> None:
    """Queue all jobs at once, for a pool that queues them itself."""
    pool.submit(sweep, jobs)
    sweep.save()


def run_to_end(sweep: Sweep, pool: Pool, jobs: Sequence[Job], notice: Notice, pause: float = PAUSE) -> list[Job]:
    """Submit jobs as the pool takes them, wait for all, and return those that did not succeed.

    A job that dies takes no other with it. On an interruption, running jobs on this machine are asked to save and end.

    Args:
        sweep: The sweep.
        pool: Where the jobs run.
        jobs: Which of them.
        notice: Called with each job that ended.
        pause: Seconds between two looks.

    Raises:
        ValueError: the pool refuses a job.
        KeyboardInterrupt: an interruption; the record says what was under way.
    """
    waiting, running, unsuccessful = list(jobs), list[Job](), list[Job]()
    try:
        while waiting or running:
            room = len(waiting) if pool.capacity is None else pool.capacity - len(running)
            if waiting and room > 0:
                started, waiting = waiting[:room], waiting[room:]
                pool.submit(sweep, started)
                running += started
                sweep.save()
            ended = [(job, outcome) for job in running if (outcome := pool.outcome(sweep, job)) is not None]
            for job, outcome in ended:
                running.remove(job)
                settle(job, outcome)
                if outcome.name != "done":
                    unsuccessful.append(job)
                notice(job, outcome)
            if ended:
                sweep.save()
            elif running:
                time.sleep(pause)
    except KeyboardInterrupt:
        if pool.capacity is not None:  # jobs of a cluster go on without this command
            for job in running:
                pool.cancel(sweep, job)
            for job in running:
                while (outcome := pool.outcome(sweep, job)) is None:
                    time.sleep(pause)
                settle(job, outcome)
        sweep.save()
        raise
    return unsuccessful


def settle(job: Job, outcome: Outcome) -> None:
    """Put an outcome into the job's record."""
    job.outcome = None if outcome.name == "done" else outcome.name
    job.reason = outcome.reason
