"""All parts on one forward pass, and a critic that may go on alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from vaebench.core import Batch
from vaebench.trainers.adversarial import check_critic_steps
from vaebench.trainers.rules import update_alone, update_together
from vaebench.trainers.trainer import Trainer
from vaebench.trainers.training import Training


@dataclass(kw_only=True)
class CoupledOptimizerAdversarialTrainer(Trainer):
    """Simultaneous gradient descent with a critic among the parts (Larsen et al., 2016, its training algorithm).

    One forward pass gives the losses of all parts, the critic's among them; each part follows the gradient of its own
    loss in its own parameters. The last part is the critic: with `num_critic_steps` above 1 it takes more steps, each
    on a forward pass of its own in which nothing else moves.

    References:
        Autoencoding beyond pixels using a learned similarity metric (Larsen et al., 2016),
        https://arxiv.org/abs/1512.09300
    Args: those of `Trainer`, and
        num_critic_steps: Updates of the critic in a step, >= 1.
    """

    name: ClassVar[str] = "coupled_adversarial"
    min_parts: ClassVar[int] = 2

    num_critic_steps: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_critic_steps(self.num_critic_steps)

    def train_step(self, training: Training, batch: Batch) -> dict[str, Tensor]:
        """Update all parts at once, then the critic alone."""
        parts = list(training.parts.values())
        update_together(training.updates, parts, batch)
        values = training.updates.recorded()
        for _ in range(self.num_critic_steps - 1):
            update_alone(training.updates, parts[-1], batch)
            values.update(training.updates.recorded())
        return values
