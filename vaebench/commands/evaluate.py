"""`vaebench evaluate`: honest numbers about a trained run, with standard errors."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from vaebench import __version__, factory
from vaebench.commands.checkpoint import checkpoint_record
from vaebench.commands.progress import progress
from vaebench.factory import configurations
from vaebench.factory.signatures import convert
from vaebench.messages import counted, did_you_mean
from vaebench.metrics.base import NotApplicableError
from vaebench.metrics.bounds import check_on_grid
from vaebench.metrics.subject import PRIOR, Subject
from vaebench.report.results import print_results
from vaebench.runs.files import refuse_unwritable
from vaebench.runs.run import Run, now, read_json, write_atomic, write_json
from vaebench.samplers.code_prior import CodePriorSampler
from vaebench.samplers.stored import FITTED, load, origin

SETTINGS = {
    "seed": int,
    "run": str | None,
    "checkpoint": Literal["best", "last"],
    "split": Literal["train", "validation", "test"],
    "num_examples": int | None,
    "batch_size": int,
    "samples": str,
    "dataset": dict[str, str | None],
}
FEW = 100  # examples, to check that data lie on the likelihood's grid
_log = logging.getLogger(__name__)


def task(cfg: DictConfig) -> None:
    """Evaluate a run: one JSON file for each metric, and a table."""
    for key, annotation in SETTINGS.items():
        convert(factory.plain(cfg)[key], annotation, key, lambda value: None)
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
    run.remove_temporaries()
    draw = None if cfg.samples == PRIOR else _stored_samples(run, cfg.samples)
    temperature = 1.0 if draw is None else _temperature(run, cfg.samples)
    extractor = factory.extractor(cfg)
    places = factory.plain(cfg)["dataset"]
    trained, dataset, model = factory.load_run(run, cfg.checkpoint, places)
    factory.check_data(run, dataset, [cfg.split], is_named=any(place is not None for place in places.values()))
    split = _examples(dataset, cfg.split, cfg.num_examples)
    device = hardware.prepare(cfg.seed)
    model.to(device)
    if split.in_memory and hardware.fits(split.nbytes):
        split = split.to(device)
    has_likelihood = "likelihood" in model.capabilities  # an energy has none: it is a density itself
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
        "data": split.fingerprint(),
        "likelihood": type(model.likelihood_head).__name__ if has_likelihood else None,
        "measure": _measure(model.likelihood_head, split) if has_likelihood else "density",
        "hardware": hardware.describe(),
        "version": __version__,
    }
    options = {"dataset": dataset, "batch_size": cfg.batch_size, "extractor": extractor}
    if any("code_prior" in metric.needs for metric in metrics.values()) and draw is not None:
        options["code_prior"] = _stored_code_prior(run, cfg.samples, model, settings["checkpoint"]["sha256"])
    at = "" if temperature in (None, 1) else f" at temperature {temperature}"
    options |= {"draw": draw, "source": "the prior" if draw is None else f"sampler={cfg.samples}{at}"}
    records = {}
    for name, metric in metrics.items():
        judges_samples = bool({"samples", "code_prior"} & metric.needs)
        file = f"{name}-{cfg.samples}" if judges_samples and draw is not None else name
        values: dict[str, Tensor] = {}
        with progress(name, "example", len(split)) as done, hardware.autocast():
            try:
                result = metric(model, split, seed=cfg.seed, advance=done.advance, **options)
                found, values = result.as_json(), result.per_example()
            except NotApplicableError as reason:
                found = {"skipped": str(reason)}
            except FloatingPointError as reason:
                found = {"failed": str(reason)}
        own: dict[str, Any] = {**settings, "metric": factory.plain(cfg)["metric"][name]}
        if judges_samples:
            own |= {"samples": cfg.samples, "temperature": temperature, "extractor": factory.plain(cfg)["extractor"]}
        records[file] = {"metric": name, "time": now(), "settings": own, **found}
        _write(run.evaluation(file), records[file], values)
        _log.info("%s: written to %s", name, run.evaluation(file))
    print_results(str(run.path), settings, records)
    if all("skipped" in record for record in records.values()):
        _log.warning("%s", _other_metrics(model, split, options))
    failed = [f"metric {name}: {record['failed']}" for name, record in records.items() if "failed" in record]
    if failed:
        raise FloatingPointError("; ".join(failed))


def _other_metrics(model: Any, split: Any, options: dict[str, Any]) -> str:
    """Name the metrics that have a meaning for the model and the examples, with their default settings."""
    folders, serving = configurations.folders(), []
    for name in configurations.options(folders).get("metric", []):
        with contextlib.suppress(ValueError):
            metric = factory.metrics({"metric": {name: configurations.load(f"metric/{name}", folders)}})[name]
            if metric.why_not(Subject(model, split, **options)) is None:
                serving.append(name)
    return (
        f"none of these metrics applies; those that do: metric={','.join(serving)}" if serving else "no metric applies"
    )


def _write(path: Path, record: dict[str, Any], per_example: dict[str, Tensor]) -> None:
    """Write a record, and beside it the values of single examples, which it names by their hash.

    The values change first: whoever finds others than the record names knows that a writer was killed in between.
    """
    beside = path.with_suffix(".safetensors")
    if per_example:
        content = save({name: values.contiguous() for name, values in per_example.items()})
        write_atomic(beside, content)
        record["per_example"] = {"file": beside.name, "sha256": hashlib.sha256(content).hexdigest()}
    write_json(path, record)
    if not per_example:
        beside.unlink(missing_ok=True)


def _stored_samples(run: Run, name: str) -> Callable[[int], Tensor]:
    """Return a function that reads the images that `vaebench sample` stored for a sampler.

    Raises:
        ValueError: there are none.
    """
    places = sorted(path.parent.name for path in run.path.glob("samples/*/samples.safetensors"))
    if name not in places:
        raise ValueError(
            f"samples: '{run.path}' has no samples of '{name}'{did_you_mean(name, [PRIOR, *places])}; draw some: "
            f"vaebench sample run={run.path} sampler={name}"
        )
    path = run.samples(name) / "samples.safetensors"
    try:
        images = load_file(path)["images"].float()
    except (OSError, SafetensorError, KeyError) as error:
        raise ValueError(f"samples: '{path}' is damaged: {' '.join(str(error).split())}") from None

    def draw(num_samples: int) -> Tensor:
        if num_samples > len(images):
            raise NotApplicableError(
                f"'{path}' holds {counted(len(images), 'sample')}, fewer than {num_samples}; draw more with "
                "'vaebench sample num_samples=', or lower num_examples or the metric's num_samples"
            )
        return images[:num_samples]

    return draw


def _temperature(run: Run, name: str) -> Any:
    """The temperature at which stored samples were drawn; None where the sampler has none, or nothing tells.

    Raises:
        ValueError: the record beside the samples is damaged.
    """
    path = run.samples(name) / "diagnostics.json"
    if not path.is_file():
        return None
    try:
        return read_json(path)["settings"]["temperature"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"samples: '{path}' is damaged ({error}); draw anew: vaebench sample run={run.path} sampler={name}"
        ) from None


def _stored_code_prior(run: Run, name: str, model: Any, checkpoint: str) -> CodePriorSampler | None:
    """The prior over codes that lies beside the samples of a sampler; None where that has none.

    Raises:
        ValueError: it is damaged, or belongs to other weights.
    """
    folder = run.samples(name)
    path = folder / FITTED
    again = f"draw anew: vaebench sample run={run.path} sampler={name}"
    try:
        settings = read_json(folder / "diagnostics.json")["settings"]["sampler"]
        sampler = factory.sampler({"sampler": settings})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"samples: '{folder / 'diagnostics.json'}' is damaged ({error}); {again}") from None
    if not isinstance(sampler, CodePriorSampler):
        return None
    reason = load(sampler.setup(model), path, origin(checkpoint, settings))
    if reason is not None:
        raise ValueError(f"samples: the fitted sampler in '{path}' {reason}; {again}")
    return sampler


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
