"""Parts in turn, each by its own loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from vaebench.core import Batch
from vaebench.messages import check_range
from vaebench.trainers.rules import update_alone
from vaebench.trainers.trainer import Trainer
from vaebench.trainers.training import Training


@dataclass(kw_only=True)
class AdversarialTrainer(Trainer):
    r"""Alternating gradient descent (Goodfellow et al., 2014, algorithm 1).

    In each step every part of `model.parts()`, in that order, takes a forward pass with the weights that the parts
    before it just got, and follows the gradient of its own loss in its own parameters:

    .. math:: \theta_i \leftarrow \theta_i - \eta \nabla_i L_i(\theta_1', \dots, \theta_{i-1}', \theta_i, \dots)

    The last part is the critic. Statistics of a part (those of batch normalisation, say) move in its own passes only.

    References:
        Generative Adversarial Networks (Goodfellow et al., 2014), https://arxiv.org/abs/1406.2661
    Deviations:
        The critic comes last, and its steps share the batch, each with noise of its own.
    Args: those of `Trainer`, and
        num_critic_steps: Updates of the critic in a step, >= 1.
    """

    name: ClassVar[str] = "adversarial"
    min_parts: ClassVar[int] = 2

    num_critic_steps: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_critic_steps(self.num_critic_steps)

    def train_step(self, training: Training, batch: Batch) -> dict[str, Tensor]:
        """Update the parts in turn."""
        *others, critic = training.parts.values()
        for part in others:
            update_alone(training.updates, part, batch)
        values = training.updates.recorded()
        for _ in range(self.num_critic_steps):
            update_alone(training.updates, critic, batch)
            last = training.updates.recorded()
        return {**values, **last}


def check_critic_steps(value: int) -> None:
    """Refuse fewer than one."""
    check_range("num_critic_steps", value, at_least=1, whole=True)
