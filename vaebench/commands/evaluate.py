"""`vaebench evaluate`: honest numbers about a trained run, with standard errors."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from vaebench import __version__, build
from vaebench.build.signatures import convert
from vaebench.metrics.base import NotApplicableError
from vaebench.report.numbers import with_error
from vaebench.run import Run, now, write_json

SETTINGS = {
    "seed": int,
    "run": str | None,
    "checkpoint": Literal["best", "last"],
    "split": Literal["train", "validation", "test"],
    "num_examples": int | None,
    "batch_size": int,
}
_log = logging.getLogger(__name__)


def task(cfg: DictConfig) -> None:
    """Evaluate a run: one JSON file for each metric, and a table."""
    for key, annotation in SETTINGS.items():
        convert(cfg[key], annotation, key, lambda value: None)
    metrics = build.metrics(cfg)
    if not metrics:
        raise ValueError("metric: nothing to evaluate; choose some, such as metric=[elbo,importance_bound]")
    hardware = build.hardware(cfg)
    run = Run.newest() if cfg.run is None else Run.open(cfg.run)
    trained, dataset, model = build.load_run(run, cfg.checkpoint)
    split = _examples(dataset, cfg.split, cfg.num_examples)
    device = hardware.prepare(cfg.seed)
    model.to(device)
    if split.in_memory and hardware.fits(split.nbytes):
        split = split.to(device)
    settings = {
        "run": str(run.path),
        "checkpoint": _checkpoint(run, cfg.checkpoint),
        "split": cfg.split,
        "num_examples": len(split),
        "limit": cfg.num_examples,
        "seed": cfg.seed,
        "batch_size": cfg.batch_size,
        "beta": 1.0,
        "dataset": build.plain(trained)["dataset"],
        "likelihood": type(model.likelihood_head).__name__,
        "measure": "mass" if model.likelihood_head.is_discrete else "density",
        "hardware": hardware.describe(),
        "version": __version__,
    }
    records = {}
    for name, metric in metrics.items():
        with _progress(name, len(split)) as advance, hardware.autocast():
            try:
                found = metric(model, split, batch_size=cfg.batch_size, seed=cfg.seed, advance=advance).as_json()
            except NotApplicableError as reason:
                found = {"skipped": str(reason)}
            except FloatingPointError as reason:
                found = {"failed": str(reason)}
        own = build.plain(cfg)["metric"][name]
        records[name] = {"metric": name, "time": now(), "settings": {**settings, "metric": own}, **found}
        write_json(run.evaluation(name), records[name])
        _log.info("%s: written to %s", name, run.evaluation(name))
    _show(run, settings, records)
    failed = [f"metric {name}: {record['failed']}" for name, record in records.items() if "failed" in record]
    if failed:
        raise FloatingPointError("; ".join(failed))


def _examples(dataset: Any, name: str, num_examples: int | None) -> Any:
    split = getattr(dataset, name)
    if len(split) == 0:
        raise ValueError(f"split: the {name} split of '{dataset.name}' is empty; choose another: split=")
    if num_examples is None:
        return split
    if not 1 <= num_examples <= len(split):
        raise ValueError(
            f"num_examples: expected 1 to {len(split)}, the size of the {name} split, or null for all; "
            f"got {num_examples}"
        )
    return split.subset(range(num_examples))


def _checkpoint(run: Run, name: str) -> dict[str, Any]:
    """Which weights were read, and how far the run had come."""
    path = run.best_weights if name == "best" and run.best_weights.is_file() else run.last_weights
    status = run.read_status()
    return {
        "name": path.stem,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "run_epoch": status.get("epoch"),
        "run_step": status.get("step"),
    }


@contextmanager
def _progress(name: str, total: int) -> Iterator[Any]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(name, total=total)
        yield lambda examples: progress.advance(bar, examples)


def _show(run: Run, settings: dict[str, Any], records: dict[str, dict[str, Any]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, title=Text(str(run.path)), title_justify="left", header_style="bold")
    for column in ("metric", "value", "n", "unit"):
        table.add_column(column, justify="right" if column in ("value", "n") else "left")
    notes = [
        f"{settings['checkpoint']['name']} checkpoint, {settings['split']} split, "
        f"{settings['num_examples']} examples, seed {settings['seed']}, beta 1; ± is one standard error over examples"
    ]
    for name, record in records.items():
        for value_name, value in record.get("values", {}).items():
            number = with_error(value["value"], value["standard_error"])
            table.add_row(value_name, number, str(value["n"]), value["unit"])
        for problem in ("skipped", "failed"):
            if problem in record:
                table.add_row(name, problem)
                notes.append(f"{name} {problem}: {record[problem]}")
        table.add_section()
        if "how" in record:
            notes.append(f"{name}: {record['how']}")
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    console.print(table)
    for note in notes:
        console.print(Text(note))
