"""How the benchmarks measure: interleaved repeats, medians with quartiles, high-water marks of memory."""

from __future__ import annotations

import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).parent


@dataclass(frozen=True)
class Settings:
    """How much to measure.

    Attributes:
        repeats: Times that each measurement is taken; the alternatives take turns.
        quick: Whether sizes are so small that only the program is tried, and the numbers mean little.
        threads: Threads of each process.
    """

    repeats: int = 7
    quick: bool = False
    threads: int = 1

    def size(self, full: int, quick: int) -> int:
        """One of two sizes."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Summarise at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Row:
    """One line of the result.

    Attributes:
        benchmark: The group that it belongs to.
        name: What was measured.
        value: In `unit`, by the clock on the wall.
        unit: Of the value.
        ratio: To the alternative `against`, from pairs that were measured one after the other; above 1 is faster, or
            for memory more.
        cpu_value: As `value`, by the processor's time: what an idle machine would need for work in one thread.
        cpu_ratio: As `ratio`, by the processor's time.
        against: Name of the alternative, or None for the alternative itself.
        note: What a reader must know: an aim, or a quoted number.
    """

    benchmark: str
    name: str
    value: Spread
    unit: str
    ratio: Spread | None = None
    against: str | None = None
    note: str = ""
    cpu_value: Spread | None = None
    cpu_ratio: Spread | None = None


@dataclass(frozen=True)
class Times:
    """Seconds that one job took, each time."""

    wall: list[float]
    cpu: list[float]


class Stopwatch:
    """Seconds since it was made; a job that returns a stopped one counts only those."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), processor_time()
        self.wall = self.cpu = 0.0

    def stop(self) -> Stopwatch:
        """Note the time."""
        self.wall, self.cpu = time.perf_counter() - self._start[0], processor_time() - self._start[1]
        return self


def interleaved(jobs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Times]:
    """Time every job once in each round, after one round that does not count.

    Taking turns spreads slow phases of the machine over all jobs. The order turns round from one round to the next.
    """
    for job in jobs.values():
        job()
    times = {name: Times([], []) for name in jobs}
    for number in range(repeats):
        for name in list(jobs)[:: 1 if number % 2 == 0 else -1]:
            gc.collect()
            whole = Stopwatch()
            own = jobs[name]()
            counted = own if isinstance(own, Stopwatch) else whole.stop()
            times[name].wall.append(counted.wall)
            times[name].cpu.append(counted.cpu)
    return times


def processor_time() -> float:
    """Seconds of this process and of those that it waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def rows(
    benchmark: str,
    times: Mapping[str, Times],
    *,
    against: str,
    unit: str,
    value: Callable[[float], float],
    notes: Mapping[str, str] | None = None,
) -> list[Row]:
    """One row for each job, `value` turning its seconds into `unit`; ratios are speeds relative to `against`."""
    result = []
    base = times[against]
    for name, own in times.items():
        is_base = name == against
        result.append(
            Row(
                benchmark,
                name,
                Spread.of([value(t) for t in own.wall]),
                unit,
                None if is_base else Spread.of([b / t for t, b in zip(own.wall, base.wall, strict=True)]),
                None if is_base else against,
                (notes or {}).get(name, ""),
                Spread.of([value(t) for t in own.cpu]),
                None if is_base else Spread.of([b / t for t, b in zip(own.cpu, base.cpu, strict=True)]),
            )
        )
    return result


def environment(threads: int) -> dict[str, str]:
    """The environment of a measured subprocess."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "COLUMNS": "120"}


def child(arguments: list[str], threads: int, cwd: str | None = None) -> str:
    """Run this Python with `arguments` and return what it prints.

    Raises:
        RuntimeError: if it fails, with the end of its messages.
    """
    done = subprocess.run(
        [sys.executable, *arguments], env=environment(threads), cwd=cwd, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def memory_growth(job: str, threads: int, quick: bool) -> float:
    """MiB by which a job of `bench_memory.py` raises its process's high-water mark."""
    return float(json.loads(child([str(SCRIPTS / "bench_memory.py"), job, str(int(quick))], threads)))
