"""Run directories written by hand, so that the report is tested without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from vaebench.runs.run import Run, write_atomic, write_json

VALUES = {"elbo": {"elbo_nats": ("higher", "nats")}, "reconstruction": {"mse": ("lower", "squared")}}


def config(seed: int = 0, **settings: Any) -> dict[str, Any]:
    """A configuration; dotted keys as `model__latent_dim`."""
    tree: dict[str, Any] = {
        "seed": seed,
        "model": {"_target_": "vaebench.models.vae.VAE", "latent_dim": 10},
        "dataset": {"_target_": "vaebench.data.digits.Digits", "binarization": "none", "root": None},
        "trainer": {"_target_": "vaebench.trainers.base.BaseTrainer", "learning_rate": 0.001},
        "hardware": {"_target_": "vaebench.hardware.device.Hardware", "device": "auto"},
    }
    for key, value in settings.items():
        *parents, name = key.split("__")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def write_run(
    path: Path,
    seed: int = 0,
    *,
    elbo: float | None = None,
    mse: float | None = None,
    losses: tuple[float, ...] = (200.0, 120.0, 100.0),
    status: str = "done",
    start: str = "2026-01-01T00:00:00.000+00:00",
    evaluation: dict[str, Any] | None = None,
    pictures: bool = False,
    **settings: Any,
) -> Run:
    """Write a run with one number for each metric that is given.

    Args:
        path: The directory.
        seed: The run's seed.
        elbo: Value of elbo_nats, standard error 0.5.
        mse: Value of mse, standard error 0.5.
        losses: Validation losses by epoch.
        status: As in status.json.
        start: Time of the start.
        evaluation: Settings of the evaluation that differ from the usual.
        pictures: Whether there are pictures.
        **settings: Of the configuration.
    """
    run = Run(path)
    write_atomic(run.config, yaml.safe_dump(config(seed, **settings)))
    write_json(run.provenance, {"start": start, "end": start, "command": f"vaebench train seed={seed}"})
    run.set_status(status, epoch=len(losses), step=10 * len(losses))
    for epoch, loss in enumerate(losses, start=1):
        run.append_metrics(
            [{"step": 10 * epoch, "epoch": epoch, "split": split, "loss": loss} for split in ("train", "validation")]
        )
    given = {"split": "test", "checkpoint": {"name": "best", "run_step": 10 * len(losses)}, "measure": "mass"}
    given |= evaluation or {}
    for metric, name, value in (("elbo", "elbo_nats", elbo), ("reconstruction", "mse", mse)):
        if value is not None:
            better, unit = VALUES[metric][name]
            entry = {"value": value, "standard_error": 0.5, "n": 100, "unit": unit, "better": better}
            write_json(run.evaluation(metric), {"settings": given, "values": {name: entry}, "how": "by hand"})
    if pictures:
        run.images.mkdir()
        Image.new("L", (40, 30), 200).save(run.images / "samples.png")
    return run
