"""The two moves that the update rules for several losses are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vaebench.core import Batch
from vaebench.messages import did_you_mean

if TYPE_CHECKING:
    from vaebench.core import Loss
    from vaebench.trainers.parts import Part
    from vaebench.trainers.training import Training


def update_alone(training: Training, part: Part, batch: Batch) -> None:
    """Update one part by its own loss, in a forward pass of its own; nothing of the other parts moves."""
    others = [module for other in training.parts.values() if other is not part for module in other.modules]
    with buffers_kept(others):
        for piece, weight in training.pieces(batch):
            loss = loss_of(part.name, training.losses(piece, part.name))
            training.record(named(part.name, loss), weight)
            training.backward_into(part, loss.total, weight)
    training.update(part)


def update_together(training: Training, parts: Sequence[Part], batch: Batch) -> None:
    """Update some parts at once, each by its own loss, all losses from one forward pass."""
    for piece, weight in training.pieces(batch):
        losses = training.losses(piece)
        for part in parts:
            loss = loss_of(part.name, losses)
            training.record(named(part.name, loss), weight)
            training.backward_into(part, loss.total, weight, retain_graph=part is not parts[-1])
    training.update(*parts)


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
