"""One training: the loop."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vaebench.core import Batch, Loss
from vaebench.hardware import collective
from vaebench.hardware.random_streams import Stream, fixed_rng
from vaebench.hardware.signals import Interrupted
from vaebench.trainers import sharing
from vaebench.trainers.batches import data_order, joined
from vaebench.trainers.interruption import SignalReceived, kept_buffers
from vaebench.trainers.running import RunningMeans
from vaebench.trainers.splits import WatchedSplit
from vaebench.trainers.training_state import TrainingState


class Training(TrainingState):
    """The loop over epochs and steps; what it works on is described by `TrainingState`.

    Args: those of `TrainingState`.
    """

    # The loop

    def run_to_end(self) -> None:
        """Train from the last checkpoint, or the first step, to the end; see `Trainer.train` for what it raises."""
        with self.signals:
            try:
                self.set_status("running")
                if not self.restore():
                    self._restartable(self._before_training)
                self._can_save = True
                self.call("on_train_start")
                self._check_signals()
                if self.unfinished is not None:  # interrupted during validation
                    self._finish_epoch()
                while self.stop_reason is None and (self.step < self.num_steps or self.closed_step != self.step):
                    self._train_epoch()
                self.call("on_train_end")
                self._check_signals()  # or a sweep would start its next job
                self.set_status("done", self.stop_reason)
            except BaseException as error:
                self.observer.report_error(self, error)
                interrupted = not isinstance(error, Exception)  # by a signal or its handler
                self.set_status("interrupted" if interrupted else "failed", str(error) or type(error).__name__)
                raise

    def _before_training(self) -> None:
        with kept_buffers(self.model), self.evaluating(), fixed_rng(self.seed, Stream.BEFORE_TRAINING):
            self.model.before_training(self._watched("initialising from the training split"))
        if self._initial_weights is not None:
            self.model.load_state_dict(dict(self._initial_weights), strict=False)

    def _train_epoch(self) -> None:
        if self.position == 0:
            self.call("on_epoch_start")
        self.model.train()
        order = data_order(len(self.train), self.seed, self.epoch)[self.position * self.rows_per_step :]
        order = order[: max(0, self.num_steps - self.step) * self.rows_per_step]
        batches = self.train.batches(
            order, self.trainer.batch_size, device=self.device, sharded=collective.is_distributed()
        )
        with contextlib.closing(batches):
            for batch in joined(batches, self.trainer.accumulate):
                self.train_step(batch)
                self._check_signals()
                self._check_time()
                if self.stop_reason is not None:
                    break
        self.finite.check()
        is_whole = self.position == self.steps_per_epoch
        number = self.epoch + 1
        self.closed_step, self.unfinished = self.step, "refresh"
        means = self.means.values()
        self.log("train", {**means, **self.finite.values()}, epoch=number)
        self.divergence.check(number, means)
        if is_whole:
            self.means.clear()
            self.epoch, self.position = number, 0
        self._finish_epoch()

    def _finish_epoch(self) -> None:
        """Refresh the model's statistics and validate: at the end of an epoch, or of the training in its middle."""
        is_whole = self.position == 0
        number = self.epoch if is_whole else self.epoch + 1
        if self.unfinished == "refresh":
            self._restartable(lambda: self._refresh(number))
            self.unfinished = "validate"
        every = self.trainer.validate_every
        if every is not None and (number % every == 0 or self.is_over):
            self.validate(number)
        self.unfinished = None
        if is_whole:
            for part in self.parts.values():
                part.schedule.after_epoch()
            self.call("on_epoch_end")
        self.model.train()

    def _refresh(self, number: int) -> None:
        with kept_buffers(self.model), self.evaluating(), fixed_rng(self.seed, Stream.END_EPOCH, number):
            self.model.end_epoch(self._watched(f"end of epoch {number}"), self.trainer.batch_size)

    def train_step(self, batch: Batch) -> dict[str, Tensor]:
        """Take one step on this process's examples of a batch.

        Returns: scalars on the device.
        """
        self.call("on_step_start")
        distributed = collective.is_distributed()
        left = len(self.train) - self.position * self.rows_per_step
        num_rows = min(self.rows_per_step, left) if distributed else len(batch)
        self.updates.begin(self.step, num_rows)
        with self.hardware.explained(type(self.model).__name__):
            terms = self.rule.train_step(self, batch)
        if self.updates.has_moved:
            part = collective.shard_of(num_rows)
            rows = collective.shard(part.start, part.stop, num_rows) if distributed else contextlib.nullcontext()
            with rows, torch.no_grad(), self.hardware.autocast():
                self.model.after_step(batch)
        sharing.average_statistics(self._statistics)
        sharing.share_generators(self.device)
        if self.average is not None and self.updates.has_moved:
            self.average.update()
        self.step += 1
        self.position += 1
        if not self.finite.skipped:
            self.means.add(terms, num_rows)
            self.divergence.note(terms)
        self.finite.note(self.step, terms, self.parts.values() if self.scaler is None else ())
        self.call("on_step_end")
        return terms

    # Signals

    def _check_signals(self) -> None:
        if (signum := self._of_main(self.signals.received)) != 0:
            self._leave(signum)

    def _check_time(self) -> None:
        limit = self.trainer.max_minutes
        if limit is not None and self._of_main(int(time.monotonic() - self._started > 60 * limit)):
            self.stop(f"trainer.max_minutes={limit} are over")

    def _leave(self, signum: int) -> None:
        """Save and go, unless a handler that was there before the training lets it go on."""
        if self._can_save:
            self.finite.check()
            self.save()
        self.set_status("interrupted", f"signal {signum}")
        if not self._of_main(int(self.is_main and self.signals.hand_on(signum))):
            raise Interrupted(signum)
        self.set_status("running")

    def _restartable(self, work: Callable[[], Any]) -> Any:
        """Do what is begun anew where a signal comes in its middle: a checkpoint holds what was before it."""
        while True:
            try:
                return work()
            except SignalReceived as received:
                self._leave(received.signum)

    def _tell_progress(self, name: str, done: int, total: int) -> None:
        """Between two pieces of restartable work: give it up where a signal has come, otherwise show how far it is."""
        if (signum := self._of_main(self.signals.received)) != 0:
            raise SignalReceived(signum)
        self.call("on_progress", name, done, total)

    def _watched(self, name: str) -> WatchedSplit:
        return WatchedSplit(self.train, lambda done: self._tell_progress(name, done, len(self.train)))

    # Evaluation

    @property
    def is_over(self) -> bool:
        """Whether no step follows."""
        return self.step >= self.num_steps or self.stop_reason is not None

    def eval_step(self, batch: Batch) -> Loss:
        """Return the validation loss of one batch."""
        with self.hardware.autocast():
            return self.rule.eval_step(self, self.hardware.prepared(batch))

    def validate(self, epoch: int | None = None) -> dict[str, float]:
        """Validate, log, and tell schedules and callbacks; return means over the validation split."""
        self.call("on_evaluation_start")
        values = self._restartable(self.validation_means)
        self.log("validation", values, epoch=epoch)
        self.finite.check_validation(self.step, values, is_last=self.is_over)
        watched = self.best_by[0] if self.best_by is not None else "loss"
        for part in self.parts.values():
            part.schedule.after_validation(values.get(watched, values["loss"]))
        self.call("on_evaluation_end", values)
        return values

    def validation_means(self, num_batches: int | None = None) -> dict[str, float]:
        """Return means over the validation split, or over its first batches, with the same noise every time."""
        means, size, distributed = RunningMeans(), self.trainer.batch_size, collective.is_distributed()
        total_batches = -(-len(self.validation) // size)
        batches = self.validation.batches(None, size, device=self.device, sharded=distributed)
        with self.evaluating(), fixed_rng(self.seed, Stream.VALIDATION), contextlib.closing(batches):
            for number, batch in enumerate(itertools.islice(batches, num_batches)):
                self._tell_progress("validation", number, total_batches)
                total = min(size, len(self.validation) - number * size)
                shard = collective.shard_of(total)
                with collective.shard(shard.start, shard.stop, total) if distributed else contextlib.nullcontext():
                    loss = self.eval_step(batch)
                means.add({"loss": loss.total.detach(), **loss.terms}, len(batch))
        return means.values(over_processes=distributed)

    # Parts of the above

    def _of_main(self, number: int) -> int:
        """Return the answer of the writing process: clocks and signals differ between processes."""
        if not collective.is_distributed():
            return number
        told = torch.tensor([number])
        torch.distributed.broadcast(told, 0)
        return int(told)
