"""`vaebench encode`: write the latents of a split, as the trained model sees it."""

from __future__ import annotations

from typing import Any, Literal

import torch
from omegaconf import DictConfig
from safetensors.torch import save
from torch import Tensor

from vaebench import factory
from vaebench.commands.checkpoint import checkpoint_record
from vaebench.commands.progress import progress
from vaebench.factory.signatures import convert
from vaebench.messages import check_range, counted
from vaebench.runs.files import refuse_unwritable
from vaebench.runs.run import Run, now, write_atomic, write_json

SETTINGS = {
    "seed": int,
    "run": str | None,
    "checkpoint": Literal["best", "last"],
    "split": Literal["train", "validation", "test"],
    "batch_size": int,
}


def task(cfg: DictConfig) -> None:
    """Encode a split: latents, labels, and a record of where they come from."""
    for key, annotation in SETTINGS.items():
        convert(cfg[key], annotation, key, lambda value: None)
    check_range("batch_size", cfg.batch_size, at_least=1, whole=True)
    hardware = factory.hardware(cfg)
    run = Run.newest() if cfg.run is None else Run.open(cfg.run)
    folder = run.path / "latents"
    refuse_unwritable(folder, "run")
    places = factory.plain(cfg)["dataset"]
    _, dataset, model = factory.load_run(run, cfg.checkpoint, places)
    factory.check_data(run, dataset, [cfg.split], is_named=any(place is not None for place in places.values()))
    model.require("posterior")
    split = getattr(dataset, cfg.split)
    if len(split) == 0:
        raise ValueError(f"split: the {cfg.split} split of '{dataset.name}' is empty; choose another: split=")
    model.to(hardware.prepare(cfg.seed))
    with progress("encode", "example", len(split)) as done, hardware.autocast():
        tensors = encoded(model, split, cfg.batch_size, done.advance)
    for name, tensor in tensors.items():
        bad = int((~tensor.isfinite().flatten(1).all(1)).sum()) if tensor.is_floating_point() else 0
        if bad:
            raise FloatingPointError(f"{name} is not finite for {bad} of {len(split)} examples; nothing was written")
    record = {
        "time": now(),
        "run": str(run.path),
        "checkpoint": checkpoint_record(run, cfg.checkpoint),
        "split": cfg.split,
        "num_examples": len(split),
        "seed": cfg.seed,
        "tensors": {name: list(tensor.shape) for name, tensor in tensors.items()},
    }
    path = folder / f"{cfg.split}.safetensors"
    path.with_suffix(".json").unlink(missing_ok=True)  # killed in between, latents have no record rather than another's
    write_atomic(path, save(tensors))
    write_json(path.with_suffix(".json"), record)
    shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
    print(f"{counted(len(split), 'example')}: {path} ({shapes})")


@torch.no_grad()
def encoded(model: Any, split: Any, batch_size: int, advance: Any = lambda amount: None) -> dict[str, Tensor]:
    """Encode a split in order.

    Args:
        model: A trained model, in eval mode.
        split: What to encode.
        batch_size: Examples at a time.
        advance: Is told how many were encoded.

    Returns: `mean`, and where q(z|x) has one `log_var`, both in float32, shape (N, *latent_shape); `labels`, shape
        (N,), where the data set has them.
    """
    device = next(model.parameters()).device
    found: dict[str, list[Tensor]] = {}
    for first in range(0, len(split), batch_size):
        batch = split.batch(torch.arange(first, min(first + batch_size, len(split)))).to(device)
        q = model.posterior(batch.x, batch.y)
        parts = {"mean": q.mean, "log_var": getattr(q, "log_var", None), "labels": batch.y}
        for name, part in parts.items():
            if part is not None:
                found.setdefault(name, []).append((part if name == "labels" else part.float()).cpu())
        advance(len(batch.x))
    return {name: torch.cat(pieces).contiguous() for name, pieces in found.items()}
