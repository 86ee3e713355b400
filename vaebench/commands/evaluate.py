"""`vaebench evaluate`: honest numbers about a trained run, with standard errors."""

from __future__ import annotations

import logging
from typing import Any, Literal

import torch
from omegaconf import DictConfig

from vaebench import __version__, factory
from vaebench.commands.checkpoint import checkpoint_record
from vaebench.commands.progress import progress
from vaebench.factory.signatures import convert
from vaebench.metrics.base import NotApplicableError
from vaebench.metrics.bounds import check_on_grid
from vaebench.report.results import print_results
from vaebench.runs.files import refuse_unwritable
from vaebench.runs.run import Run, now, write_json

SETTINGS = {
    "seed": int,
    "run": str | None,
    "checkpoint": Literal["best", "last"],
    "split": Literal["train", "validation", "test"],
    "num_examples": int | None,
    "batch_size": int,
}
FEW = 100  # examples that tell whether the data are on the likelihood's grid
_log = logging.getLogger(__name__)


def task(cfg: DictConfig) -> None:
    """Evaluate a run: one JSON file for each metric, and a table."""
    for key, annotation in SETTINGS.items():
        convert(cfg[key], annotation, key, lambda value: None)
    if cfg.batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {cfg.batch_size}")
    metrics = factory.metrics(cfg)
    if not metrics:
        raise ValueError("metric: nothing to evaluate; choose some, such as metric=[elbo,importance_bound]")
    hardware = factory.hardware(cfg)
    if hardware.num_devices > 1:
        raise ValueError(
            f"hardware.num_devices: evaluation computes on one device, got {hardware.num_devices}; choose hardware=auto"
        )
    run = Run.newest() if cfg.run is None else Run.open(cfg.run)
    refuse_unwritable(run.evaluation("").parent, "run")
    trained, dataset, model = factory.load_run(run, cfg.checkpoint)
    split = _examples(dataset, cfg.split, cfg.num_examples)
    device = hardware.prepare(cfg.seed)
    model.to(device)
    if split.in_memory and hardware.fits(split.nbytes):
        split = split.to(device)
    settings = {
        "run": str(run.path),
        "checkpoint": checkpoint_record(run, cfg.checkpoint),
        "split": cfg.split,
        "num_examples": len(split),
        "limit": cfg.num_examples,
        "seed": cfg.seed,
        "batch_size": cfg.batch_size,
        "beta": 1.0,
        "dataset": factory.plain(trained)["dataset"],
        "likelihood": type(model.likelihood_head).__name__,
        "measure": _measure(model.likelihood_head, split),
        "hardware": hardware.describe(),
        "version": __version__,
    }
    records = {}
    for name, metric in metrics.items():
        with progress(name, "example", len(split)) as done, hardware.autocast():
            try:
                found = metric(model, split, batch_size=cfg.batch_size, seed=cfg.seed, advance=done.advance).as_json()
            except NotApplicableError as reason:
                found = {"skipped": str(reason)}
            except FloatingPointError as reason:
                found = {"failed": str(reason)}
        own = factory.plain(cfg)["metric"][name]
        records[name] = {"metric": name, "time": now(), "settings": {**settings, "metric": own}, **found}
        write_json(run.evaluation(name), records[name])
        _log.info("%s: written to %s", name, run.evaluation(name))
    print_results(str(run.path), settings, records)
    failed = [f"metric {name}: {record['failed']}" for name, record in records.items() if "failed" in record]
    if failed:
        raise FloatingPointError("; ".join(failed))


def _measure(likelihood: Any, split: Any) -> str | None:
    """What log p(x) is the logarithm of, or None if the likelihood has no probabilities for these data."""
    if not likelihood.is_discrete:
        return "density"
    try:
        check_on_grid(likelihood, split.batch(torch.arange(min(len(split), FEW))).x)
    except NotApplicableError:
        return None
    return "mass"


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
