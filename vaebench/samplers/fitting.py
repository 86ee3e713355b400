"""Samplers that learn by gradient descent: our trainers fit them, and an interrupted fit goes on where it stopped."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import shutil
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor
from typing_extensions import Self

from vaebench.core import Batch, Draws, Model, ProgressFunction, Split
from vaebench.data.split import DataSplit
from vaebench.hardware import collective
from vaebench.hardware.device import Hardware
from vaebench.hardware.random_streams import rng_state, set_rng_state
from vaebench.messages import check_range, counted
from vaebench.runs import lock
from vaebench.runs.run import Run, read_json, write_json
from vaebench.samplers.base import BaseSampler
from vaebench.trainers.base import BaseTrainer
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.callbacks.checkpoint import Checkpoint, is_better
from vaebench.trainers.training import Training

HELD_OUT = 0.1  # share of the latents, for validation
LEAST = 20  # latents needed for a fit
MOST_BYTES = 4 * 2**30  # that a fit may take beside the latents
COPIES = 20  # of a weight during a fit, as measured: gradient, moments, average, best one, and the checkpoints' bytes
_log = logging.getLogger(__name__)


class FitSettings(TypedDict, total=False):
    """What a sampler that is trained hands on to `TrainedSampler`."""

    num_epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    temperature: float
    refit: bool


class TrainedSampler(BaseSampler):
    """A sampler whose density is a `core.Model`, fitted to encoded data by the trainer of single-loss models.

    A tenth of the latents is held out: after each epoch their loss decides which weights are kept, and the fit ends
    when it has not improved for `patience` epochs. For a model with labels the density is conditional on them.

    Attributes:
        instead: What to do where a fit would take too much memory, the end of a sentence.

    Args:
        num_epochs: Most passes over the latents, >= 1.
        patience: Epochs without improvement before the fit ends, >= 1.
        batch_size: Latents in a step, >= 1; all of them where there are fewer.
        learning_rate: Of Adam, > 0.
        temperature: T, scale of the noise that is drawn, >= 0; 1 is what was fitted.
        refit: Whether to fit again even if a fitted sampler is stored beside the samples.
    """

    learns = True
    needs = frozenset({"posterior"})
    excludes = frozenset({"codes"})
    trainer_options: ClassVar[Mapping[str, Any]] = {}
    instead: ClassVar[str] = "choose sampler=normal"
    density: Model
    is_fitted: Tensor

    def __init__(
        self,
        *,
        num_epochs: int = 200,
        patience: int = 30,
        batch_size: int = 100,
        learning_rate: float = 1e-3,
        temperature: float = 1.0,
        refit: bool = False,
    ) -> None:
        super().__init__()
        for name, number in (("num_epochs", num_epochs), ("patience", patience), ("batch_size", batch_size)):
            check_range(name, number, at_least=1, whole=True)
        check_range("learning_rate", learning_rate, above=0, below=math.inf)
        check_range("temperature", temperature, at_least=0, below=math.inf)
        self.num_epochs, self.patience, self.batch_size = num_epochs, patience, batch_size
        self.learning_rate, self.temperature, self.refit = learning_rate, temperature, refit

    @abstractmethod
    def build(self, model: Any) -> Model:
        """Return a new density for the latents of `model`, which `setup` has looked at already."""

    def fit_bytes(self, num_features: int) -> int:
        """Estimate the memory that fitting latents (N, D) takes beside them, where it may be much; bytes."""
        return 0

    def too_large(self, num_dims: int) -> str | None:
        """Say what memory the fit takes."""
        num_bytes = self.fit_bytes(num_dims)
        if num_bytes <= MOST_BYTES:
            return None
        return (
            f"a fit to latents of {num_dims} numbers takes about {num_bytes / 2**30:.1f} GiB, more than "
            f"{MOST_BYTES / 2**30:g}; {self.instead}"
        )

    def setup(self, model: Any = None, split: Split | None = None) -> Self:
        """Create the density of the model's latents."""
        super().setup(model, split)
        self.register_buffer("is_fitted", torch.zeros((), dtype=torch.bool))
        self.density = self.build(model).eval()
        self.to(self.like.device)
        return self

    def examples(self, latents: Draws) -> Batch:
        """Return what the density is fitted to: latents (N, D), with labels as contexts where the model has them."""
        return Batch(latents.z.flatten(1).float(), context=self.context(latents.y))

    @torch.enable_grad()
    def fit(self, latents: Draws, progress: ProgressFunction | None = None, folder: Path | None = None) -> Self:
        """Train the density on the latents.

        The generators are left as if one number had been drawn, however long the fit is.

        Args:
            latents: One draw from the posterior of each training example, with its label where there is one.
            progress: Called with the number of epochs done, and the largest.
            folder: Where the fit keeps its checkpoints, and goes on from those that are there; None keeps none.

        Raises:
            ValueError: if there are fewer than 20 latents, or labels are missing.
            NonFiniteError: if the loss is not finite.
        """
        if len(latents) < LEAST:
            raise ValueError(f"expected at least {LEAST} latents to fit sampler={self.name} to, got {len(latents)}")
        with torch.no_grad():
            examples = self.examples(latents)
        order = collective.permutation(len(examples), examples.x.device)
        held_out, kept = order.tensor_split([max(1, int(HELD_OUT * len(examples)))])
        train, validation = (_split(examples[rows].map(Tensor.detach)) for rows in (kept, held_out))
        seed, before = int(torch.randint(2**31, ())), rng_state()
        best = _KeepBest(self.num_epochs, progress)
        trainer = BaseTrainer(
            num_epochs=self.num_epochs,
            batch_size=min(self.batch_size, len(kept)),
            learning_rate=self.learning_rate,
            patience=self.patience,
            **self.trainer_options,
        )
        try:
            training = trainer.train(
                self.density,
                _Latents(train, validation, f"latents for sampler={self.name}"),
                run=None if folder is None else Run(folder),
                callbacks=[best, *([] if folder is None else [Checkpoint()])],
                default_callbacks=False,
                hardware=_hardware_as_it_is(examples.x.device),
                seed=seed,
            )
        finally:
            set_rng_state(before)
        self.density.load_state_dict(best.weights)
        self.density.eval()
        self.is_fitted.fill_(True)
        least = "none" if best.value is None else f"{best.value:.4f}"
        epochs = counted(training.epoch, "epoch")
        _log.info("sampler=%s: least loss of held-out latents %s, of %s", self.name, least, epochs)
        return self

    def check_fitted(self) -> None:
        """Refuse to draw from first weights.

        Raises:
            ValueError: if `fit` was not called and nothing was loaded.
        """
        if not self.is_fitted:
            raise ValueError(f"the density of sampler={self.name} is not fitted; call fit first")


class StandardizedModel(Model):
    """A density of latents that computes with u = (z - mean) / scale, coordinate by coordinate.

    Args:
        num_features: D.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.shape = (num_features,)
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))

    def before_training(self, train: Split) -> None:
        """Take mean and standard deviation from the latents."""
        z = torch.cat([train.batch(rows).x for rows in torch.arange(len(train)).split(10_000)])
        self.mean.copy_(z.mean(0))
        self.scale.copy_(z.std(0).clamp(min=1e-6))

    def standardize(self, z: Tensor) -> Tensor:
        """Return u, shape (B, D), for z of the same shape."""
        return (z - self.mean) / self.scale

    def restore(self, u: Tensor) -> Tensor:
        """Return z, shape (B, D), for u of the same shape."""
        return self.mean + self.scale * u


@contextlib.contextmanager
def kept_fit(folder: Path, belongs_to: Mapping[str, str], seed: int) -> Iterator[Path]:
    """Context with a folder for a fit, this process's alone.

    It holds the checkpoints of an interrupted fit, if that was one of the same sampler to the same checkpoint and seed;
    those of any other are removed.

    Args:
        folder: Beside the sampler's samples, which replace it.
        belongs_to: The `stored.origin` of the sampler.
        seed: Of the command.

    Raises:
        LockedError: if another process is fitting there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with lock.held(folder):
        ours, record = {**belongs_to, "seed": seed}, folder / "fit.json"
        try:
            found = read_json(record) if record.is_file() else None
        except ValueError:
            found = None
        if found != ours:
            for entry in folder.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                elif entry.name != lock.NAME:
                    entry.unlink()
            write_json(record, json.loads(json.dumps(ours)))
        yield folder


@dataclass(frozen=True)
class _Latents:
    """A data set of latents, as far as a training reads it."""

    train: DataSplit
    validation: DataSplit
    name: str


def _split(examples: Batch) -> DataSplit:
    return DataSplit(examples.x, examples.y, context=examples.context)


class _KeepBest(Callback):
    """Keeps the weights with the least loss of held-out latents in memory, and in the checkpoint."""

    def __init__(self, num_epochs: int, progress: ProgressFunction | None) -> None:
        self.num_epochs, self.progress = num_epochs, progress
        self.value: float | None = None
        self.weights: dict[str, Tensor] = {}

    def on_train_start(self, training: Training) -> None:
        if not self.weights:
            self.weights = training.weights()
        self._tell(training)

    def on_evaluation_end(self, training: Training, values: dict[str, float]) -> None:
        if is_better(values["loss"], self.value, "min"):
            self.value, self.weights = values["loss"], training.weights()

    def on_epoch_end(self, training: Training) -> None:
        self._tell(training)

    def _tell(self, training: Training) -> None:
        if self.progress is not None:
            self.progress(training.epoch, self.num_epochs)

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "weights": dict(self.weights)}

    def expected_state(self, training: Training) -> dict[str, Any]:
        return {"value": self.value, "weights": dict(training.model.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self.weights = state["value"], dict(state["weights"])


def _hardware_as_it_is(device: torch.device) -> Hardware:
    """The hardware of a fit: the latents' device, full precision, and what the process has set already."""
    return Hardware(
        device={"cuda": "gpu"}.get(device.type, device.type),
        precision="tf32" if torch.get_float32_matmul_precision() == "high" and device.type == "cuda" else "fp32",
        threads=torch.get_num_threads(),
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
