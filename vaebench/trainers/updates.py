"""Losses, gradients and optimiser steps: what update rules are written with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from vaebench.core import Batch, Loss, Model, as_loss
from vaebench.hardware import collective
from vaebench.hardware.device import Hardware
from vaebench.hardware.random_streams import rng_state, set_rng_state
from vaebench.trainers import sharing
from vaebench.trainers.finite import FiniteCheck
from vaebench.trainers.parts import Part


class Updates:
    """One optimiser step, in the precision of the hardware, over all processes.

    Attributes:
        parts: The model's parts with their optimisers.
        scaler: The gradient scaler of float16, or None.
        finite: Watches losses and gradients.
        measure_gradient_norm: Whether norms are measured where no clipping needs them.
        step: Optimiser steps done before this one.
        num_rows: Examples of the step, over all processes.
        has_moved: Whether any optimiser took its step.

    Args:
        model: The model, on its device.
        parts: As above.
        finite: As above.
        scaler: As above.
        hardware: What to compute on.
        batch_size: Examples in a batch, over all processes; larger steps are worked on in pieces of it.
    """

    def __init__(
        self,
        model: Model,
        parts: dict[str, Part],
        finite: FiniteCheck,
        scaler: torch.amp.GradScaler | None,
        hardware: Hardware,
        batch_size: int,
    ) -> None:
        self.parts = parts
        self.finite = finite
        self.scaler = scaler
        self.measure_gradient_norm = finite.policy == "skip" or finite.largest_norm is not None
        self.step = 0
        self.num_rows = 0
        self.has_moved = False
        self._hardware = hardware
        self._batch_size = batch_size
        self._loss = hardware.compiled(model.loss)
        self._losses = hardware.compiled(model.losses)
        self._recorded: dict[str, Tensor] = {}

    def begin(self, step: int, num_rows: int) -> None:
        """Start a step."""
        self.step, self.num_rows, self.has_moved = step, num_rows, False

    def pieces(self, batch: Batch) -> Iterator[tuple[Batch, float]]:
        """Yield the batch in pieces of the user's batch size, each with its share of the step's gradient.

        Inside, random draws are those of the whole batch over all processes: neither the number of pieces nor that of
        processes changes them.
        """
        distributed = collective.is_distributed()
        total, size = self.num_rows if distributed else len(batch), self._batch_size
        if not distributed and total <= size:
            yield self._hardware.prepared(batch), 1.0
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
                yield self._hardware.prepared(batch[offset : offset + own]), own / total
            offset += own

    def loss(self, batch: Batch) -> Loss:
        """Return the model's loss."""
        with self._hardware.autocast():
            return as_loss(self._loss(batch, self.step))

    def losses(self, batch: Batch, part: str | None = None) -> dict[str, Loss]:
        """Return the model's losses, or the one of `part`."""
        with self._hardware.autocast():
            losses = self._losses(batch, self.step, part)
        return {name: as_loss(loss) for name, loss in losses.items()}

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
        self._scaled(loss, weight).backward()

    def backward_into(self, part: Part, loss: Tensor, weight: float = 1.0, retain_graph: bool = False) -> None:
        """Add a loss's gradient to the parameters of `part`, and to no others."""
        gradients = torch.autograd.grad(
            self._scaled(loss, weight), part.parameters, retain_graph=retain_graph, allow_unused=True
        )
        for parameter, gradient in zip(part.parameters, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def _scaled(self, loss: Tensor, weight: float) -> Tensor:
        loss = loss if weight == 1.0 else loss * weight
        scaled: Any = loss if self.scaler is None else self.scaler.scale(loss)
        return scaled

    def apply(self, *parts: Part) -> None:
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
        terms = {} if distributed else self._recorded  # processes agree on gradients, not on terms
        is_allowed = self.finite.allows(self.step, terms, parts if self.scaler is None else ())
        is_allowed = is_allowed and self.finite.allows_norms(parts)
        for part in parts:
            is_taken = is_allowed and part.take_step(self.scaler)
            if is_taken:
                part.schedule.after_update()
                self.has_moved = True
            else:
                part.gradient_norm = None
            if self.scaler is not None and is_allowed and not is_taken:
                self.finite.note_overflow(self.step, part.name, self.scaler.get_scale())
        if self.scaler is not None:
            self.scaler.update()
        for part in parts:
            part.optimizer.zero_grad(set_to_none=True)
