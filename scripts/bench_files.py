"""What files cost: a checkpoint, and a data set that is read from disk while it trains."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from bench_measure import Row, Settings, interleaved, rows
from bench_training import BATCH_SIZE, Data, binary_images, new_run, new_vae, trainer

from vaebench.data.io.array_rows import ArrayRows
from vaebench.data.io.values import Values
from vaebench.data.split import DataSplit
from vaebench.hardware.device import Hardware
from vaebench.trainers.base import BaseTrainer


def checkpoint(settings: Settings) -> list[Row]:
    """One checkpoint of `vae` 784-512-10 with its optimiser, against torch.save of the same tensors."""
    data = binary_images(BATCH_SIZE, BATCH_SIZE)
    with new_run() as run:
        options = BaseTrainer(num_epochs=1, batch_size=BATCH_SIZE)
        hardware = Hardware(device="cpu", threads=torch.get_num_threads())
        training = options.train(new_vae("mlp"), data, run=run, hardware=hardware)
        optimiser = training.parts["model"].optimizer
        target = Path(run.path) / "bare.pt"
        jobs = {
            "torch.save": lambda: torch.save([training.model.state_dict(), optimiser.state_dict()], target),
            "vaebench": training.save,
        }
        times = interleaved(jobs, settings.repeats)
    note = "flushed to the disk; one every 30 s of training, and one at its end"
    return rows("checkpoint", times, against="torch.save", unit="ms", value=lambda t: 1e3 * t, notes={"vaebench": note})


def streaming(settings: Settings) -> list[Row]:
    """Training `vae` 784-512-10 on bytes that stay on disk, against the same bytes in memory."""
    num_train, num_validation = settings.size(10_000, 200), settings.size(1_000, 100)
    memory = binary_images(num_train, num_validation)
    with tempfile.TemporaryDirectory() as folder:
        streamed = Data(
            *(_on_disk(Path(folder) / f"{i}.npy", s) for i, s in enumerate((memory.train, memory.validation)))
        )
        jobs = {"in memory": trainer(new_vae("mlp"), memory, 1), "streamed": trainer(new_vae("mlp"), streamed, 1)}
        times = interleaved(jobs, settings.repeats)
    return rows(
        "streaming",
        times,
        against="in memory",
        unit="examples/s",
        value=lambda t: num_train / t,
        notes={"streamed": "a mapped file of bytes, which the system may hold in its cache"},
    )


def _on_disk(path: Path, split: DataSplit) -> DataSplit:
    np.save(path, split.x.to(torch.uint8).numpy())
    return DataSplit(ArrayRows(np.load(path, mmap_mode="r"), Values("binary", 1.0, torch.uint8, "")), scale=1.0)
