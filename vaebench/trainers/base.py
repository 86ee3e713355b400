"""One loss, one backward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from vaebench.core import Batch
from vaebench.trainers.trainer import Trainer

if TYPE_CHECKING:
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
        for piece, weight in training.pieces(batch):
            loss = training.loss(piece)
            training.record({"loss": loss.total, **loss.terms}, weight)
            training.backward(loss.total, weight)
        training.update(*training.parts.values())
        return training.recorded()
