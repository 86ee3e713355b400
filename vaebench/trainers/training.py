"""One training: the loop, its state, and what callbacks see of it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from vaebench.core import Batch, Loss
from vaebench.hardware import collective
from vaebench.hardware.device import Hardware
from vaebench.hardware.random_streams import Stream, fixed_rng, rng_state, seed_stream, set_rng_state
from vaebench.runs.run import Run
from vaebench.trainers import resume, sharing
from vaebench.trainers.batches import check_data, data_order, joined, say_what_accumulation_is
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.callbacks.defaults import with_defaults
from vaebench.trainers.callbacks.hooks import Hooks
from vaebench.trainers.finite import FiniteCheck
from vaebench.trainers.parts import Part, build_parts
from vaebench.trainers.running import RunningMeans
from vaebench.trainers.signals import Interrupted, SignalFlag
from vaebench.trainers.trainer import Trainer

log = logging.getLogger(__name__)


class Training:
    """A model on its way through a data set.

    Attributes:
        trainer: The options and the update rule.
        model: The model, on the device.
        dataset: The data set.
        train: Its training split, on the device if it fits; likewise `validation`.
        run: The directory to write to; None without one, and on processes that do not write.
        device: Where the model is.
        parts: The model's parts with their optimisers.
        step: Optimiser steps done.
        epoch: Epochs done.
        position: Steps done in the current epoch.
        closed_step: The step after which the last epoch, or the training in its middle, was logged and validated.
        num_rows: Examples of the step at hand, over all processes.
        num_steps: Length of the training in steps.
        average: Averaged weights (`callbacks.ema.EMA`), or None.
        history: The rows logged since this start of the program.
        best: The best value of the metric that is kept, or None.
        stop_reason: Why training ended before its length, or None.

    Args: those of `Trainer.train`.
    """

    def __init__(
        self,
        trainer: Trainer,
        model: Any,
        dataset: Any,
        *,
        run: Run | None = None,
        callbacks: Iterable[Callback] = (),
        hardware: Hardware | None = None,
        seed: int = 0,
    ) -> None:
        if model.trainer != trainer.name:
            raise ValueError(f"model {type(model).__name__} needs trainer={model.trainer}, got trainer={trainer.name}")
        self.trainer = trainer
        self.dataset = dataset
        self.hardware = hardware or Hardware()
        self.seed = seed
        self.is_main = collective.rank() == 0
        self.run = run if self.is_main else None
        self.device = self.hardware.prepare()
        seed_stream(seed, Stream.TRAINING)  # not the numbers again that made the first weights
        self.model = model.to(self.device)
        sharing.share_model(self.model)
        self._statistics = sharing.statistics_of(self.model)
        if self.hardware.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.train = self._placed(dataset.train)
        self.validation = self._placed(dataset.validation)
        check_data(trainer, model, self.train, self.validation)
        say_what_accumulation_is(trainer, model)

        self.rows_per_step = trainer.batch_size * trainer.accumulate
        self.steps_per_epoch = -(-len(self.train) // self.rows_per_step)
        self.num_steps = trainer.num_steps or trainer.num_epochs * self.steps_per_epoch
        self.parts = build_parts(trainer, model, self.num_steps, -(-self.num_steps // self.steps_per_epoch))
        self.scaler = self.hardware.scaler()
        self._loss = self.hardware.compiled(model.loss)
        self._losses = self.hardware.compiled(model.losses)

        self.step = self.epoch = self.position = 0
        self.closed_step = -1
        self.means = RunningMeans()
        self.finite = FiniteCheck(trainer.non_finite, trainer.max_skipped, self.device, self.scaler is not None)
        self.average: Any = None
        self.best: float | None = None
        self.history: list[dict[str, Any]] = []
        self.stop_reason: str | None = None
        self.measure_gradient_norm = trainer.non_finite == "skip"
        self.signals = SignalFlag(enabled=self.is_main)
        self.callbacks = with_defaults(trainer, self.run, callbacks)
        self._hooks = Hooks(self.callbacks, self.is_main)
        self._recorded: dict[str, Tensor] = {}
        self.num_rows = 0
        self._has_moved = False
        self._started = time.monotonic()
        for callback in self.callbacks:
            callback.check(self)

    # The loop

    def run_to_end(self) -> None:
        """Train from the last checkpoint, or the first step, to the end; see `Trainer.train` for what it raises."""
        with self.signals:
            try:
                resume.restore(self)
                self.set_status("running")
                self.call("on_train_start")
                while self.stop_reason is None and (self.step < self.num_steps or self.closed_step != self.step):
                    self._train_epoch()
                self.call("on_train_end")
                self.set_status("done", self.stop_reason)
            except BaseException as error:
                self._hooks.tell(self, error)
                interrupted = not isinstance(error, Exception)  # by a signal, or by the handler that came after it
                self.set_status("interrupted" if interrupted else "failed", str(error) or type(error).__name__)
                raise

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
                self._look_up()
                if self.stop_reason is not None:
                    break
        self.finite.check()
        is_whole = self.position == self.steps_per_epoch
        self._close_epoch(is_whole)

    def _close_epoch(self, is_whole: bool) -> None:
        """Log, refresh the model's statistics, validate: at the end of an epoch, or of the training in its middle."""
        number = self.epoch + 1
        self.closed_step = self.step
        self.log("train", {**self.means.values(), **self.finite.values()}, epoch=number)
        if is_whole:
            self.means.clear()
            self.epoch, self.position = number, 0
        with self.evaluating(), fixed_rng(self.seed, Stream.END_EPOCH, number):
            self.model.end_epoch(self.train, self.trainer.batch_size)
        every = self.trainer.validate_every
        if every is not None and (number % every == 0 or self.step >= self.num_steps or self.stop_reason is not None):
            self.validate(number)
        if is_whole:
            for part in self.parts.values():
                part.schedule.after_epoch()
            self.call("on_epoch_end")
        self.model.train()

    def train_step(self, batch: Batch) -> dict[str, Tensor]:
        """Take one step on this process's examples of a batch.

        Returns: scalars on the device.
        """
        self.call("on_step_start")
        left = len(self.train) - self.position * self.rows_per_step
        self.num_rows = min(self.rows_per_step, left) if collective.is_distributed() else len(batch)
        self._has_moved = False
        with self.hardware.explained(type(self.model).__name__):
            terms = self.trainer.train_step(self, batch)
        sharing.average_statistics(self._statistics)
        sharing.share_generators(self.device)
        if self.average is not None and self._has_moved:
            self.average.update()
        self.step += 1
        self.position += 1
        if not self.finite.skipped:
            self.means.add(terms, self.num_rows)
        self.finite.note(self.step, terms, self.parts.values() if self.scaler is None else ())
        self.call("on_step_end")
        return terms

    def _look_up(self) -> None:
        """Between two steps: has a signal come, or the time run out?"""
        if (signum := self._of_main(self.signals.received)) != 0:
            self.finite.check()
            self.save()
            self.set_status("interrupted", f"signal {signum}")
            goes_on = self._of_main(int(self.is_main and self.signals.hand_on(signum)))
            if not goes_on:
                raise Interrupted(signum)
            self.set_status("running")
        limit = self.trainer.max_minutes
        if limit is not None and self._of_main(int(time.monotonic() - self._started > 60 * limit)):
            self.stop(f"trainer.max_minutes={limit} are over")

    def stop(self, reason: str) -> None:
        """End the training after the current step or epoch."""
        self.stop_reason = reason

    # Losses, gradients and updates: what update rules are written with

    def pieces(self, batch: Batch) -> Iterator[tuple[Batch, float]]:
        """Yield the batch in pieces of the user's batch size, each with its share of the step's gradient.

        Inside, random draws are those of the whole batch over all processes: neither the number of pieces nor that of
        processes changes them.
        """
        distributed = collective.is_distributed()
        total, size = self.num_rows if distributed else len(batch), self.trainer.batch_size
        if not distributed and total <= size:
            yield self.hardware.prepared(batch), 1.0
            return
        state = rng_state() if total > size else None
        offset = 0
        for first in range(0, total, size):
            last = min(first + size, total)
            part = collective.shard_of(last - first)
            own = part.stop - part.start
            if state is not None:
                set_rng_state(state)
            together = ((first, last),) if total > size else None
            with collective.shard(first + part.start, first + part.stop, total, together):
                yield self.hardware.prepared(batch[offset : offset + own]), own / total
            offset += own

    def loss(self, batch: Batch) -> Loss:
        """Return the model's loss, computed in the precision of the hardware."""
        with self.hardware.autocast():
            return self._loss(batch, self.step)

    def losses(self, batch: Batch, part: str | None = None) -> dict[str, Loss]:
        """Return the model's losses, or the one of `part`, computed in the precision of the hardware."""
        with self.hardware.autocast():
            return self._losses(batch, self.step, part)

    def record(self, values: Mapping[str, Tensor], weight: float) -> None:
        """Add one piece's share to the step's log values."""
        for name, value in values.items():
            value = value.detach() if weight == 1.0 else value.detach() * weight
            self._recorded[name] = self._recorded[name] + value if name in self._recorded else value

    def recorded(self) -> dict[str, Tensor]:
        """Return the step's log values, summed over processes, and start anew."""
        values, self._recorded = self._recorded, {}
        if not collective.is_distributed() or not values:
            return values
        stacked = torch.stack([value.float() for value in values.values()])
        torch.distributed.all_reduce(stacked)
        return dict(zip(values, stacked.unbind(), strict=True))

    def backward(self, loss: Tensor, weight: float = 1.0) -> None:
        """Add a loss's gradient to every parameter."""
        loss = loss if weight == 1.0 else loss * weight
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def backward_into(self, part: Part, loss: Tensor, weight: float = 1.0, retain_graph: bool = False) -> None:
        """Add a loss's gradient to the parameters of `part`, and to no others."""
        loss = loss if weight == 1.0 else loss * weight
        loss = loss if self.scaler is None else self.scaler.scale(loss)
        gradients = torch.autograd.grad(loss, part.parameters, retain_graph=retain_graph, allow_unused=True)
        for parameter, gradient in zip(part.parameters, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def update(self, *parts: Part) -> None:
        """Step the optimisers by the gradients that were gathered, and clear these.

        Where an optimiser's step is left out, its schedule stays, and its gradient has no norm; where all are, the
        averaged weights stay too. The batch is used up all the same: `step` counts it.
        """
        distributed = collective.is_distributed()
        for part in parts:
            if distributed:
                sharing.sum_over_processes(part)
            if self.scaler is not None:
                self.scaler.unscale_(part.optimizer)
            part.clip(self.measure_gradient_norm)
        terms = {} if distributed else self._recorded  # gradients are the same in every process, terms are not
        is_allowed = self.finite.allows(self.step, terms, parts if self.scaler is None else ())
        for part in parts:
            is_taken = is_allowed and part.take_step(self.scaler)
            if is_taken:
                part.schedule.after_update()
                self._has_moved = True
            else:
                part.gradient_norm = None
            if self.scaler is not None and is_allowed and not is_taken:
                self.finite.note_overflow(self.step, part.name, self.scaler.get_scale())
        if self.scaler is not None:
            self.scaler.update()
        for part in parts:
            part.optimizer.zero_grad(set_to_none=True)

    # Evaluation

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode, without gradients, by the averaged weights where there are any."""
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad(), self.averaged():
            yield
        self.model.train(was_training)

    def averaged(self) -> contextlib.AbstractContextManager[Any]:
        """Context in which the model's weights are the averaged ones, where there are any."""
        return contextlib.nullcontext() if self.average is None else self.average.swapped()

    def eval_step(self, batch: Batch) -> Loss:
        """Return the validation loss of one batch."""
        with self.hardware.autocast():
            return self.trainer.eval_step(self, self.hardware.prepared(batch))

    def validate(self, epoch: int | None = None) -> dict[str, float]:
        """Validate, log, and tell schedules and callbacks; return means over the validation split."""
        self.call("on_evaluation_start")
        values = self.validation_means()
        self.log("validation", values, epoch=epoch)
        for part in self.parts.values():
            part.schedule.after_validation(values.get(self.trainer.keep_best or "loss", values["loss"]))
        self.call("on_evaluation_end", values)
        return values

    def validation_means(self, num_batches: int | None = None) -> dict[str, float]:
        """Return means over the validation split, or over its first batches, with the same noise every time."""
        means, size, distributed = RunningMeans(), self.trainer.batch_size, collective.is_distributed()
        batches = self.validation.batches(None, size, device=self.device, sharded=distributed)
        with self.evaluating(), fixed_rng(self.seed, Stream.VALIDATION), contextlib.closing(batches):
            for number, batch in enumerate(itertools.islice(batches, num_batches)):
                total = min(size, len(self.validation) - number * size)
                shard = collective.shard_of(total)
                with collective.shard(shard.start, shard.stop, total) if distributed else contextlib.nullcontext():
                    loss = self.eval_step(batch)
                means.add({"loss": loss.total.detach(), **loss.terms}, len(batch))
        return means.values(over_processes=distributed)

    # Records

    def log(self, split: str, values: Mapping[str, Any], epoch: int | None = None) -> None:
        """Write one row to metrics.jsonl, and show it to the callbacks."""
        row = {"step": self.step, "epoch": self.epoch if epoch is None else epoch, "split": split, **values}
        self.history.append(row)
        if self.run is not None:
            self.run.append_metrics([row])
        self.call("on_log", row)

    def save(self) -> None:
        """Write a checkpoint now."""
        resume.save(self)

    def weights(self) -> dict[str, Tensor]:
        """The weights that evaluation sees, copied."""
        with self.averaged():
            return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def set_status(self, status: str, reason: str | None = None) -> None:
        """Write status.json; an error while an error is being reported stays quiet."""
        if self.run is None:
            return
        quiet = contextlib.suppress(OSError) if status in ("failed", "interrupted") else contextlib.nullcontext()
        with quiet:
            self.run.set_status(status, epoch=self.epoch, step=self.step, reason=reason)

    # Parts of the above

    def call(self, hook: str, *arguments: Any) -> None:
        """Call one hook of every callback."""
        self._hooks.call(self, hook, *arguments)

    def _of_main(self, number: int) -> int:
        """What the writing process says: clocks and signals differ between processes."""
        if not collective.is_distributed():
            return number
        told = torch.tensor([number])
        torch.distributed.broadcast(told, 0)
        return int(told)

    def _placed(self, split: Any) -> Any:
        if any(parameter.dtype == torch.float64 for parameter in self.model.parameters()):
            split = split.to(split.device, torch.float64)
        if split.in_memory and len(split) and self.hardware.fits(split.nbytes):
            return split.to(self.device)
        return split
