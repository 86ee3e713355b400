"""One optimiser for each part, on one forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from vaebench.core import Batch
from vaebench.trainers.rules import update_together
from vaebench.trainers.trainer import Trainer
from vaebench.trainers.training import Training


@dataclass(kw_only=True)
class CoupledOptimizerTrainer(Trainer):
    r"""Simultaneous gradient descent on several losses.

    One forward pass gives the losses of all parts; each part follows the gradient of its own loss in its own
    parameters, and all move at once:

    .. math:: \theta_i \leftarrow \theta_i - \eta_i \nabla_{\theta_i} L_i(\theta_1, \dots, \theta_n)

    Args: those of `Trainer`.
    """

    name: ClassVar[str] = "coupled"
    min_parts: ClassVar[int] = 2

    def train_step(self, training: Training, batch: Batch) -> dict[str, Tensor]:
        """Update the parts at once."""
        update_together(training.updates, list(training.parts.values()), batch)
        return training.updates.recorded()
