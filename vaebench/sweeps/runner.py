"""Jobs from the first submission to the last outcome; the record is on the disk after every change."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from vaebench.sweeps.pool import Outcome, Pool
from vaebench.sweeps.record import Job, Sweep

PAUSE = 0.5  # longest pause between checks of the jobs, seconds
FIRST_PAUSE = 0.02  # after a check that found news; doubles after each that did not

Notice = Callable[[Job, Outcome], None]


def submit_all(sweep: Sweep, pool: Pool, jobs: Sequence[Job]) -> None:
    """Queue all jobs at once, for a pool that queues them itself; those that are under way stay as they are."""
    pool.submit(sweep, [job for job in jobs if not pool.is_under_way(sweep, job)])
    sweep.save()


def catch_up(sweep: Sweep, pool: Pool) -> None:
    """Put into the record how the jobs of an earlier command ended that nobody waited for."""
    for job in sweep.jobs:
        if job.job_id is not None and job.outcome is None and not pool.is_under_way(sweep, job):
            outcome = pool.outcome(sweep, job)
            if outcome is not None:
                settle(job, outcome)


def run_to_end(sweep: Sweep, pool: Pool, jobs: Sequence[Job], notice: Notice, pause: float = PAUSE) -> list[Job]:
    """Submit jobs as the pool takes them, wait for all, and return those that did not succeed.

    A job that dies takes no other with it, except those that need it. What an earlier command left under way is waited
    for, not submitted again. On an interruption, running jobs on this machine are asked to save and end.

    Args:
        sweep: The sweep.
        pool: Where the jobs run.
        jobs: Which of them.
        notice: Called with each job that ended.
        pause: Seconds between two looks, at most.

    Raises:
        ValueError: the pool refuses a job.
        KeyboardInterrupt: an interruption; the record says what was under way.
    """
    running = [job for job in jobs if pool.is_under_way(sweep, job)]
    waiting = [job for job in jobs if job not in running]
    unsuccessful: list[Job] = []
    nap = min(FIRST_PAUSE, pause)

    def end(job: Job, outcome: Outcome) -> None:
        settle(job, outcome)
        if outcome.name != "done":
            unsuccessful.append(job)
        notice(job, outcome)

    try:
        while waiting or running:
            lost = [(job, need) for job in [*waiting, *running] if (need := lost_need(job, unsuccessful)) is not None]
            for job, need in lost:
                if job in running:
                    pool.cancel(sweep, job)
                (running if job in running else waiting).remove(job)
                end(job, Outcome("skipped", f"job {need}, which it needs, did not succeed"))
            under_way = {job.number for job in [*waiting, *running]}
            ready = [job for job in waiting if pool.capacity is None or under_way.isdisjoint(job.needs)]
            room = len(ready) if pool.capacity is None else max(0, pool.capacity - len(running))
            if started := ready[:room]:
                waiting = [job for job in waiting if job not in started]
                pool.submit(sweep, started)
                running += started
                sweep.save()
            ended = [(job, outcome) for job in running if (outcome := pool.outcome(sweep, job)) is not None]
            for job, outcome in ended:
                running.remove(job)
                end(job, outcome)
            if ended or lost:
                sweep.save()
                nap = min(FIRST_PAUSE, pause)
            elif running:
                time.sleep(nap)
                nap = min(2 * nap, pause)
    except KeyboardInterrupt:
        if pool.capacity is not None:  # jobs on a cluster outlive this command
            for job in running:
                pool.cancel(sweep, job)
            for job in running:
                while (outcome := pool.outcome(sweep, job)) is None:
                    time.sleep(pause)
                settle(job, outcome)
        sweep.save()
        raise
    return unsuccessful


def lost_need(job: Job, unsuccessful: Sequence[Job]) -> int | None:
    """Return the number of a job that this one needs and that did not succeed; a report does without."""
    if job.verb == "report":
        return None
    return next((other.number for other in unsuccessful if other.number in job.needs), None)


def settle(job: Job, outcome: Outcome) -> None:
    """Put an outcome into the job's record."""
    job.outcome = None if outcome.name == "done" else outcome.name
    job.reason = outcome.reason
