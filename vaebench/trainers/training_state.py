"""The state of a training: model, data, optimisers, counters; its records and its checkpoints."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaebench.core import Model
from vaebench.hardware import collective
from vaebench.hardware.device import Hardware
from vaebench.hardware.random_streams import Stream, rng_state, seed_stream, set_rng_state
from vaebench.hardware.signals import SignalFlag
from vaebench.runs.run import Run
from vaebench.trainers import resume, sharing
from vaebench.trainers.batches import check_data, warn_if_accumulation_changes_loss
from vaebench.trainers.checked_state import checked_state
from vaebench.trainers.divergence import DivergenceWatch
from vaebench.trainers.finite import FiniteCheck
from vaebench.trainers.interfaces import Average, Observer, UpdateRule
from vaebench.trainers.options import TrainerOptions
from vaebench.trainers.parts import build_parts
from vaebench.trainers.running import RunningMeans
from vaebench.trainers.state import save_state, save_weights
from vaebench.trainers.updates import Updates

log = logging.getLogger(__name__)


class TrainingState:
    """A model on its way through a data set, between two steps.

    Attributes:
        trainer: The options.
        rule: The update rule.
        model: The model, on the device.
        dataset: The data set.
        train: Its training split, on the device if it fits; likewise `validation`.
        run: The directory to write to; None without one, and on processes that do not write.
        device: Where the model is.
        parts: The model's parts with their optimisers.
        updates: Losses, gradients and optimiser steps: what update rules are written with.
        step: Optimiser steps done.
        epoch: Epochs done.
        position: Steps done in the current epoch.
        closed_step: The step after which the last epoch, or the training in its middle, was logged.
        unfinished: What is left to do after that log row: "refresh" and validate, "validate", or None.
        num_steps: Length of the training in steps.
        carried: What the update rule carries from step to step, by name: persistent chains, say.
        average: Averaged weights, or None.
        latest: The last row of each split.
        best_by: The validation metric that compares weights, and "min" or "max"; None where none does.
        best: Its best value, or None.
        stop_reason: Why training ended before its length, or None.

    Args: those of `Trainer.train`, and
        trainer: The options.
        rule: The update rule.
        observer: The callbacks.
    """

    def __init__(
        self,
        trainer: TrainerOptions,
        rule: UpdateRule[Any],
        model: Model,
        dataset: Any,
        *,
        observer: Observer[Any],
        run: Run | None = None,
        hardware: Hardware | None = None,
        seed: int = 0,
        initial_weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        if model.trainer != trainer.name:
            raise ValueError(f"model {type(model).__name__} needs trainer={model.trainer}, got trainer={trainer.name}")
        self.trainer = trainer
        self.rule = rule
        self.dataset = dataset
        self.hardware = hardware or Hardware()
        self.seed = seed
        self.is_main = collective.rank() == 0
        self.run = run if self.is_main else None
        self.device = self.hardware.prepare()
        seed_stream(seed, Stream.TRAINING)  # a stream of its own, not the one of the initial weights
        self.model = model.to(self.device)
        sharing.share_model(self.model)
        self._statistics = sharing.statistics_of(self.model)
        if self.hardware.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.train = self._placed(dataset.train)
        self.validation = self._placed(dataset.validation)
        check_data(trainer, model, self.train, self.validation)
        warn_if_accumulation_changes_loss(trainer, model)

        self.rows_per_step = trainer.batch_size * trainer.accumulate
        self.steps_per_epoch = -(-len(self.train) // self.rows_per_step)
        self.num_steps = trainer.num_steps or trainer.num_epochs * self.steps_per_epoch
        self.parts = build_parts(trainer, model, self.num_steps, -(-self.num_steps // self.steps_per_epoch))
        self.scaler = self.hardware.scaler()
        self.finite = FiniteCheck(
            trainer.non_finite,
            trainer.max_skipped,
            self.device,
            self.scaler is not None,
            trainer.skip_gradient_above,
        )
        self.updates = Updates(model, self.parts, self.finite, self.scaler, self.hardware, trainer.batch_size)

        self.step = self.epoch = self.position = 0
        self.closed_step = -1
        self.unfinished: str | None = None
        self.means = RunningMeans()
        self.divergence = DivergenceWatch(enabled=model.best_criterion is not None)
        self.average: Average | None = None
        self.carried = rule.carry(model, self.device)
        self.best_by = trainer.best_by(model.best_criterion)
        self.best: float | None = None
        self.latest: dict[str, dict[str, Any]] = {}
        self.stop_reason: str | None = None
        self.signals = SignalFlag(enabled=self.is_main)
        self.observer = observer
        self._initial_weights = initial_weights
        self._can_save = False
        self._started = time.monotonic()
        observer.check(self)

    @property
    def num_rows(self) -> int:
        """Examples of the current step, over all processes."""
        return self.updates.num_rows

    def stop(self, reason: str) -> None:
        """End the training after the current step or epoch."""
        self.stop_reason = reason

    # Evaluation mode

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode, without gradients, by the averaged weights where there are any."""
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad(), self.averaged():
                yield
        finally:
            self.model.train(was_training)

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Context in which the model's weights are the averaged ones, where there are any."""
        return contextlib.nullcontext() if self.average is None else self.average.swapped()

    # Records

    def log(self, split: str, values: Mapping[str, Any], epoch: int | None = None) -> None:
        """Write one row to metrics.jsonl, and show it to the callbacks."""
        row = {"step": self.step, "epoch": self.epoch if epoch is None else epoch, "split": split, **values}
        self.latest[split] = row
        if self.run is not None:
            self.run.append_metrics([row])
        self.call("on_log", row)

    def set_status(self, status: str, reason: str | None = None) -> None:
        """Write status.json; an error while an error is being reported stays quiet."""
        if self.run is None:
            return
        quiet = contextlib.suppress(OSError) if status in ("failed", "interrupted") else contextlib.nullcontext()
        with quiet:
            self.run.set_status(status, epoch=self.epoch, step=self.step, reason=reason)

    def call(self, hook: str, *arguments: Any) -> None:
        """Call one hook of every callback."""
        self.observer.call(self, hook, *arguments)

    # Checkpoints

    def save(self) -> None:
        """Write weights and state. The rename of the state file makes the checkpoint; nothing before it counts.

        Raises:
            NonFiniteError: a weight is not finite; the previous checkpoint stays.
            OSError: the disk is full or not writable; the previous checkpoint stays.
        """
        self.finite.check()
        if self.run is None:
            return
        resume.check_weights(self.model, self.step)
        tree = {**self.state_dict(), "metrics_offset": self.run.metrics_offset()}
        self.call("on_save")
        save_weights(self.run.last_weights, self.weights())
        save_state(self.run.last_state, tree)
        self.set_status("running")

    def restore(self) -> bool:
        """Continue from the run's checkpoint, if it has one; return whether there was one.

        Raises:
            ValueError: it is damaged, or was written with other options; the sentence names the differing keys.
        """
        path = resume.find(self.run)
        if path is None:
            return False
        tree = self._read(path)
        try:
            self.load_state_dict(tree)
            set_rng_state(tree["rng"])
        except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            sentence = " ".join(str(error).split())[:300]
            raise ValueError(f"checkpoint '{path}' does not fit this training: {sentence}") from None
        if self.run is not None:
            self.run.truncate_metrics(tree["metrics_offset"])
        log.info("continuing at step %d (epoch %d)", self.step, self.epoch)
        return True

    def check_checkpoint(self) -> None:
        """Refuse a checkpoint from which this training cannot go on, before anything in its directory is touched.

        Raises:
            ValueError: as `restore`, or its schedule is shorter than this training.
        """
        path = resume.find(self.run)
        if path is None:
            return
        tree = self._read(path)
        for name, part in self.parts.items():
            part.schedule.check_state(tree["parts"][name]["schedule"])

    def _read(self, path: Path) -> dict[str, Any]:
        """Read a state file, and hold every entry against what this training would have written."""
        if self.run is not None:
            self.run.refuse_strange_entries()
        tensors = (*self.model.state_dict().values(), *self.carried.values())
        tree = resume.read(path, self.fingerprint(), sum(value.nbytes for value in tensors))
        try:
            return checked_state(tree, self)
        except (ValueError, TypeError, RuntimeError, KeyError, OverflowError) as error:
            raise ValueError(f"checkpoint '{path}' does not fit this training: {error}") from None

    def state_dict(self) -> dict[str, Any]:
        """Everything that the training is made of."""
        return {
            "fingerprint": self.fingerprint(),
            "step": self.step,
            "epoch": self.epoch,
            "position": self.position,
            "closed_step": self.closed_step,
            "unfinished": self.unfinished,
            "model": dict(self.model.state_dict()),
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "means": self.means.state_dict(),
            "carried": dict(self.carried),
            "finite": self.finite.state_dict(),
            "divergence": self.divergence.state_dict(),
            "callbacks": self.observer.state_dict(),
            "best": self.best,
            "rng": rng_state(),
        }

    def load_state_dict(self, tree: Mapping[str, Any]) -> None:
        """Continue from `tree`."""
        self.model.load_state_dict(tree["model"])
        for name, part in self.parts.items():
            part.load_state_dict(tree["parts"][name])
        if self.scaler is not None and tree["scaler"] is not None:
            self.scaler.load_state_dict(tree["scaler"])
        self.means.load_state_dict(tree["means"], self.device)
        for name, value in self.carried.items():
            value.copy_(tree["carried"][name])
        self.finite.load_state_dict(tree["finite"])
        self.divergence.load_state_dict(tree["divergence"])
        self.observer.load_state_dict(tree["callbacks"])
        self.step, self.epoch, self.position = tree["step"], tree["epoch"], tree["position"]
        self.closed_step, self.unfinished, self.best = tree["closed_step"], tree["unfinished"], tree["best"]

    def fingerprint(self) -> dict[str, Any]:
        """The settings that two starts of one run must have in common."""
        shapes = {name: list(value.shape) for name, value in self.model.named_parameters()}
        return {
            **self.trainer.fingerprint(),
            "model": type(self.model).__name__,
            "model parameters": shapes,
            "dataset": str(getattr(self.dataset, "name", "")),
            "training examples": len(self.train),
            "validation examples": len(self.validation),
            "seed": self.seed,
        }

    def weights(self) -> dict[str, Tensor]:
        """The weights that evaluation sees, copied."""
        with self.averaged():
            return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def _placed(self, split: Any) -> Any:
        if any(parameter.dtype == torch.float64 for parameter in self.model.parameters()):
            split = split.to(split.device, torch.float64)
        if split.in_memory and len(split) and self.hardware.fits(split.nbytes):
            return split.to(self.device)
        return split
