"""One loss, one backward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from vaebench.core import Batch
from vaebench.trainers.trainer import Trainer
from vaebench.trainers.training import Training


@dataclass(kw_only=True)
class BaseTrainer(Trainer):
    """Gradient descent on `model.loss`.

    With `parts`, each part of the model has an optimiser of its own, and all follow the one loss.

    Args: those of `Trainer`.
    """

    name: ClassVar[str] = "base"

    def train_step(self, training: Training, batch: Batch) -> dict[str, Tensor]:
        """Update every part by the gradient of the loss."""
        updates = training.updates
        for piece, weight in updates.pieces(batch):
            loss = updates.loss(piece)
            updates.record({"loss": loss.total, **loss.terms}, weight)
            updates.backward(loss.total, weight)
        updates.apply(*training.parts.values())
        return updates.recorded()
