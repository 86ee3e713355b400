"""What every trainer takes, checked once; the update rule is what tells them apart."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from vaebench.core import Batch, Loss
from vaebench.hardware.device import Hardware
from vaebench.hardware.random_streams import Stream, fixed_rng
from vaebench.messages import did_you_mean
from vaebench.runs.run import Run
from vaebench.trainers.optimizers import check_learning_rate, check_scheduler

if TYPE_CHECKING:
    from vaebench.trainers.callbacks.callback import Callback
    from vaebench.trainers.training import Training

_PREDICTION = 4  # a stream of random numbers
PART_KEYS = ("learning_rate", "optimizer", "optimizer_args", "scheduler", "scheduler_args", "gradient_clip_norm")
# What may change between an interruption and the continuation: how long the training is, not what it does.
LENGTH_KEYS = frozenset({"num_epochs", "num_steps", "max_minutes", "patience"})


@dataclass(kw_only=True)
class Trainer(ABC):
    """Base of the trainers: the options that they share.

    Args:
        num_epochs: Passes over the training split, >= 1.
        num_steps: Train for that many optimiser steps instead.
        batch_size: Examples in a batch, over all processes together.
        learning_rate: > 0.
        optimizer: Name in `torch.optim`.
        optimizer_args: Its other arguments.
        scheduler: "cosine", or a name in `torch.optim.lr_scheduler`; null keeps the rate constant.
        scheduler_args: Its arguments.
        scheduler_interval: "epoch" or "step": how often a schedule of torch moves on.
        warmup_steps: Optimiser steps in which the rate rises linearly from 0, >= 0.
        parts: For a part of the model, values of its own for learning_rate, optimizer, optimizer_args, scheduler,
            scheduler_args or gradient_clip_norm: {discriminator: {learning_rate: 1e-4}}.
        gradient_clip_norm: Gradients of a larger norm are scaled down to it, > 0.
        accumulate: Batches in an optimiser step, >= 1: the gradient is that of one batch `accumulate` times as large,
            in the memory of a small one. Where a loss couples the examples of a batch, only those of a small one meet.
        ema_decay: Decay per step of averaged weights, in [0, 1), which are then evaluated and saved; smaller in the
            first steps, min(ema_decay, (1 + t) / (10 + t)).
        validate_every: Epochs between validations, >= 1; null never validates.
        keep_best: Validation metric whose best weights are kept; null keeps none.
        keep_best_mode: "min" or "max".
        patience: Validations without improvement of `keep_best` after which training ends, >= 1.
        max_minutes: Wall-clock time of one start of the program after which training ends, > 0.
        non_finite: What a loss or gradient that is not finite does: "stop" ends the run, "skip" leaves the step out.
        max_skipped: With "skip", steps left out before the run ends after all.
    """

    name: ClassVar[str]
    min_parts: ClassVar[int] = 1

    num_epochs: int = 100
    num_steps: int | None = None
    batch_size: int = 100
    learning_rate: float = 1e-3
    optimizer: str = "Adam"
    optimizer_args: dict[str, Any] | None = None
    scheduler: str | None = None
    scheduler_args: dict[str, Any] | None = None
    scheduler_interval: str = "epoch"
    warmup_steps: int = 0
    parts: dict[str, dict[str, Any]] | None = None
    gradient_clip_norm: float | None = None
    accumulate: int = 1
    ema_decay: float | None = None
    validate_every: int | None = 1
    keep_best: str | None = "loss"
    keep_best_mode: str = "min"
    patience: int | None = None
    max_minutes: float | None = None
    non_finite: str = "stop"
    max_skipped: int = 10

    def __post_init__(self) -> None:
        for key in ("num_epochs", "num_steps", "batch_size", "accumulate", "validate_every", "patience"):
            value = getattr(self, key)
            if value is not None and (value != int(value) or value < 1):
                raise ValueError(f"trainer.{key} must be an integer of at least 1, got {value}")
        for key in ("warmup_steps", "max_skipped"):
            if getattr(self, key) < 0:
                raise ValueError(f"trainer.{key} must be at least 0, got {getattr(self, key)}")
        for key in ("gradient_clip_norm", "max_minutes"):
            check_positive(getattr(self, key), f"trainer.{key}")
        for key, choices in (
            ("scheduler_interval", ("epoch", "step")),
            ("keep_best_mode", ("min", "max")),
            ("non_finite", ("stop", "skip")),
        ):
            value = getattr(self, key)
            if value not in choices:
                raise ValueError(f"trainer.{key} must be {' or '.join(choices)}, got '{value}'")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f"trainer.ema_decay must be at least 0 and below 1, got {self.ema_decay}")
        if self.patience is not None and (self.validate_every is None or self.keep_best is None):
            raise ValueError("trainer.patience needs a metric: set trainer.validate_every and trainer.keep_best")
        check_learning_rate(self.learning_rate, "trainer")
        check_scheduler(self.scheduler, self.scheduler_args)
        for part, values in (self.parts or {}).items():
            if not isinstance(values, Mapping):
                raise ValueError(f"trainer.parts.{part} must hold keys such as learning_rate, got {values!r}")
            for key in values:
                if key not in PART_KEYS:
                    raise ValueError(f"trainer.parts.{part} takes no '{key}'{did_you_mean(key, PART_KEYS)}")

    def start(
        self,
        model: Any,
        dataset: Any,
        *,
        run: Run | None = None,
        callbacks: Iterable[Callback] = (),
        hardware: Hardware | None = None,
        seed: int = 0,
    ) -> Training:
        """Return a training that is ready to run, or to be stepped by hand."""
        from vaebench.trainers.training import Training

        return Training(self, model, dataset, run=run, callbacks=callbacks, hardware=hardware, seed=seed)

    def train(
        self,
        model: Any,
        dataset: Any,
        *,
        run: Run | None = None,
        callbacks: Iterable[Callback] = (),
        hardware: Hardware | None = None,
        seed: int = 0,
    ) -> Training:
        """Train `model` in place, from the run's last checkpoint if it has one.

        Args:
            model: A `LatentVariableModel`.
            dataset: Has the splits `train` and `validation`.
            run: The directory to write to; nothing is written without one.
            callbacks: Behaviour around the loop. A `Progress`, a `Checkpoint` and, with a run, `Pictures` are added
                unless they are among them.
            hardware: What to compute on; by default a GPU if there is one.
            seed: Of data order and noise.

        Returns:
            The finished training: `step`, `epoch`, `best`, `history`, `stop_reason`.

        Raises:
            ValueError: a mistake in the options, the model's trainer, the data or the checkpoint.
            NonFiniteError: a loss that is not finite.
            Interrupted: a signal ended the training; everything is saved.
        """
        training = self.start(model, dataset, run=run, callbacks=callbacks, hardware=hardware, seed=seed)
        training.run_to_end()
        return training

    @abstractmethod
    def train_step(self, training: Training, batch: Batch) -> dict[str, Tensor]:
        """Update the weights once; the update rule.

        Args:
            training: Computes losses and gradients, and steps the optimisers.
            batch: This process's examples of one optimiser step.

        Returns:
            Detached scalars for the logs, means over `batch`.
        """

    def eval_step(self, training: Training, batch: Batch) -> Loss:
        """Return the validation loss of one batch."""
        return training.model.validation_loss(batch, training.step)

    def predict(self, training: Training, x: Tensor) -> Tensor:
        """Return reconstructions of x, shape (B, *shape), through the posterior mean, on the CPU.

        The weights are the averaged ones where there are any.
        """
        model, device = training.model, training.device
        with training.evaluating(), fixed_rng(training.seed, Stream.PREDICTION), training.hardware.autocast():
            pieces = [model.reconstruct(part.to(device), deterministic=True) for part in x.split(self.batch_size)]
        return torch.cat(pieces).float().cpu()

    def required_parts(self, names: Sequence[str]) -> None:
        """Refuse a model whose parts this update rule cannot use."""
        if len(names) < self.min_parts:
            raise ValueError(
                f"trainer={self.name} needs a model of at least {self.min_parts} parts, got {', '.join(names)}; "
                f"choose trainer=base"
            )

    def fingerprint(self) -> dict[str, Any]:
        """The options that a continued run must share."""
        shared = [field.name for field in fields(self) if field.name not in LENGTH_KEYS]
        return {"trainer": self.name, **{f"trainer.{key}": getattr(self, key) for key in shared}}


def check_positive(value: Any, key: str) -> None:
    """Refuse what is neither None nor a finite number above 0."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise ValueError(f"{key} must be a number above 0, or null; got {value}")
