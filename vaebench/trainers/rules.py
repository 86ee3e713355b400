"""The two moves that the update rules for several losses are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vaebench.core import Batch, Loss
from vaebench.messages import did_you_mean
from vaebench.trainers.parts import Part
from vaebench.trainers.updates import Updates


def update_alone(updates: Updates, part: Part, batch: Batch) -> None:
    """Update one part by its own loss, in a forward pass of its own; nothing of the other parts moves."""
    others = [module for other in updates.parts.values() if other is not part for module in other.modules]
    with buffers_kept(others):
        for piece, weight in updates.pieces(batch):
            loss = loss_of(part.name, updates.losses(piece, part.name))
            updates.record(named(part.name, loss), weight)
            updates.backward_into(part, loss.total, weight)
    updates.apply(part)


def update_together(updates: Updates, parts: Sequence[Part], batch: Batch) -> None:
    """Update some parts at once, each by its own loss, all losses from one forward pass."""
    for piece, weight in updates.pieces(batch):
        losses = updates.losses(piece)
        for part in parts:
            loss = loss_of(part.name, losses)
            updates.record(named(part.name, loss), weight)
            updates.backward_into(part, loss.total, weight, retain_graph=part is not parts[-1])
    updates.apply(*parts)


@contextmanager
def buffers_kept(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Context after which the buffers of some modules (running means, power iterations) are as they were before."""
    buffers = [buffer for module in modules if isinstance(module, nn.Module) for buffer in module.buffers()]
    copies = [buffer.clone() for buffer in buffers]
    yield
    with torch.no_grad():
        for buffer, copy in zip(buffers, copies, strict=True):
            buffer.copy_(copy)


def named(part: str, loss: Loss) -> dict[str, Tensor]:
    """The log values of one part's loss."""
    return {f"{part}_loss": loss.total, **{f"{part}_{name}": value for name, value in loss.terms.items()}}


def loss_of(part: str, losses: dict[str, Loss]) -> Loss:
    """Return the loss of one part.

    Raises:
        ValueError: the model gives none.
    """
    if part not in losses:
        raise ValueError(f"losses() gives no loss for the part '{part}'{did_you_mean(part, losses)}")
    return losses[part]
