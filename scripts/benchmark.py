"""Measure speed and memory against what a careful person would write by hand.

    python scripts/benchmark.py                        everything, some minutes
    python scripts/benchmark.py --only vae sampler     some of it
    python scripts/benchmark.py --quick                tiny sizes: tries the program, the numbers mean little

Every number is a ratio to an alternative that was measured in turns with it, in the same process or in processes
started in turns. Numbers marked "quoted" were measured elsewhere and are printed for orientation only; where pythae is
installed, "reference" measures it beside ours.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path

import bench_chains
import bench_codes
import bench_files
import bench_hierarchies
import bench_memory
import bench_pictures
import bench_reference
import bench_sampler
import bench_start
import bench_sweeps
import bench_training
import torch
from bench_measure import Row, Settings, Spread
from rich.console import Console
from rich.table import Table

import vaebench
from vaebench.messages import did_you_mean
from vaebench.runs.run import write_json

BENCHMARKS = {
    "vae": bench_training.vae,
    "rhvae": bench_training.rhvae,
    "sampler": bench_sampler.sampler,
    "chains": bench_chains.speed,
    "efficiency": bench_chains.efficiency,
    "reference": bench_reference.reference,
    "start": bench_start.start,
    "memory": bench_memory.training,
    "memory-centroids": bench_memory.metric,
    "checkpoint": bench_files.checkpoint,
    "streaming": bench_files.streaming,
    "sweeps": bench_sweeps.sweeps,
    "conv": bench_training.conv,
    "unet_vae": bench_pictures.unet_vae,
    "likelihood": bench_pictures.likelihood,
    "vdvae": bench_hierarchies.vdvae,
    "codes": bench_codes.codes,
    "compiled": bench_training.compiled,
}
WIDTH = 130
BUSY = 0.9  # below this share of a core, times on the wall say little


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one repeat")
    parser.add_argument("--repeats", type=int, default=7, help="times that each measurement is taken (7)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process (1)")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmark.json"), help="where the JSON goes")
    options = parser.parse_args(arguments)
    for name in options.only or ():
        if name not in BENCHMARKS:
            parser.error(f"--only: unknown name '{name}'{did_you_mean(name, BENCHMARKS)}")
    if options.repeats < 1 or options.threads < 1:
        parser.error("--repeats and --threads must be at least 1")
    if "reference" in (options.only or ()) and not bench_reference.is_installed():
        parser.error("--only: reference expects pythae to be installed, and it is not")
    settings = Settings(1 if options.quick else options.repeats, options.quick, options.threads)
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)

    console = Console()
    if console.width < WIDTH:
        console = Console(width=WIDTH)  # a pipe has no width of its own; a folded number cannot be read
    machine = describe_machine(settings)
    console.print("  ".join(f"{key} {value}" for key, value in machine.items()))
    result: list[Row] = []
    for name in options.only or BENCHMARKS:
        if name == "reference" and not bench_reference.is_installed():
            console.print("skipping reference: pythae is not installed")
            continue
        console.print(f"measuring {name} …")
        result += BENCHMARKS[name](settings)
    console.print(table(result))
    for row in result:
        if row.note:
            console.print(f"{row.benchmark}: {row.name}: {row.note}", highlight=False)
    share = processor_share(result)
    if share is not None and share < BUSY:
        console.print(f"The machine was busy: the median job had {share:.0%} of a core. Read the ratios of CPU time.")
    write_json(
        options.output,
        {
            "machine": machine,
            "settings": asdict(settings),
            "processor_share": share,
            "rows": [asdict(r) for r in result],
        },
    )
    console.print(f"written to {options.output}")
    return 0


def describe_machine(settings: Settings) -> dict[str, str | int]:
    """What the numbers depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "vaebench": vaebench.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": cores,
        "threads": settings.threads,
    }


def processor_share(result: list[Row]) -> float | None:
    """CPU time over wall time of the median job, or None where none was timed."""
    shares = []
    for row in result:
        if row.cpu_value is not None and row.cpu_value.median > 0 and row.value.median > 0:
            quotient = row.cpu_value.median / row.value.median
            shares.append(min(quotient, 1 / quotient))  # rates are greater by CPU time, durations smaller
    return Spread.of(shares).median if shares else None


def table(result: list[Row]) -> Table:
    """The rows for people."""
    view = Table(
        title=r"medians \[quartiles]; a ratio above 1 is faster than, or takes more memory than, the reference"
    )
    for heading in ("what", "value", "unit", "ratio", "by CPU time", "reference"):
        view.add_column(heading, overflow="fold")
    last = result[0].benchmark
    for row in result:
        if row.benchmark != last:
            view.add_section()
        last = row.benchmark
        ratios = [_show(row.ratio), _show(row.cpu_ratio)]
        view.add_row(f"{row.benchmark}: {row.name}", _show(row.value), row.unit, *ratios, row.against or "")
    return view


def _show(spread: Spread | None) -> str:
    if spread is None:
        return ""
    values = [f"{v:,.0f}" if abs(v) >= 100 else f"{v:.3g}" for v in (spread.median, spread.low, spread.high)]
    return values[0] if values[1] == values[2] else f"{values[0]} [{values[1]}, {values[2]}]"


if __name__ == "__main__":
    sys.exit(main())
