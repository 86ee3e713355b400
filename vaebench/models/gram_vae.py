r"""A VAE whose encoder keeps its picture of which positions are alike, by a Gram loss against its own average."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from vaebench.core import Batch, Loss, Split
from vaebench.hardware import collective
from vaebench.messages import check_range, did_you_mean
from vaebench.models.base import Components, LatentVariableModel
from vaebench.networks import Conv, Network
from vaebench.objectives.gram_loss import GramLoss, Negatives


class GramVAE(LatentVariableModel):
    r"""VAE with the Gram loss of DINOv3 (Siméoni et al., 2025) on a level of its encoder.

    .. math:: L = -E_{q(z|x)}[\log p(x|z)] + KL(q(z|x) \| p(z)) + \lambda \, \| S S^T - T T^T \|^2

    S are the encoder's features of a level, T those of the teacher, and the last term is the mean over pairs of
    positions (see `objectives.GramLoss`). The teacher is the moving average of the encoder's weights, and part of every
    checkpoint. Validation reports the ELBO.

    References:
        DINOv3 (Siméoni et al., 2025), https://arxiv.org/abs/2508.10104 (section 4.2)
    Deviations:
        The paper's teacher is an earlier checkpoint; an average needs no second phase of training. The weights of the
        terms are ours, since the paper has no VAE.
    Args: those of `LatentVariableModel`, and
        gram_weight: lambda in nats, >= 0.
        level: Level of the encoder whose features are compared, a feature map: C2, C3, …. The cost grows with the
            square of its positions.
        img_level: Whether each picture is compared within itself, or all positions of the batch with each other.
        negatives: What becomes of cosines below zero: clamp, teacher or keep; see `GramLoss`.
        teacher_decay: Share of itself that the average keeps at each step, in [0, 1).
    """

    def __init__(  # type: ignore[misc]  # another default
        self,
        shape: Sequence[int],
        *,
        gram_weight: float = 1.0,
        level: str = "C3",
        img_level: bool = True,
        negatives: Negatives = "clamp",
        teacher_decay: float = 0.999,
        network: Network = Conv(),  # noqa: B008 - a frozen description
        **components: Unpack[Components],
    ) -> None:
        super().__init__(shape, network=network, **components)
        check_range("gram_weight", gram_weight, at_least=0, below=math.inf)
        check_range("teacher_decay", teacher_decay, at_least=0, below=1)
        self.gram_weight, self.level, self.teacher_decay = gram_weight, level, teacher_decay
        self.gram_loss = GramLoss(img_level, negatives)
        self.couples_batch = not img_level  # type: ignore[misc]
        self.teacher = _without_parameters(self.encoder)
        self._check_level()

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return D + R + gram_weight * Gram; nats per example."""
        distortion, rate = self.distortion_and_rate(batch.x, batch.y)
        gram = self.gram(batch.x)
        return Loss.mean(distortion + rate + self.gram_weight * gram, distortion=distortion, rate=rate, gram=gram)

    def gram(self, x: Tensor) -> Tensor:
        """Return the Gram loss of the encoder against its teacher, a scalar, for x of shape (B, *shape)."""
        student = self.encoder.features(x)[self.level]
        with torch.no_grad():
            teacher = self.teacher.features(x)[self.level]
        if not self.gram_loss.img_level:
            student, teacher = collective.gather(student), collective.gather(teacher)
        return self.gram_loss(student, teacher)

    def before_training(self, train: Split) -> None:
        """Let the teacher begin as the encoder."""
        self._average(0.0)

    def after_step(self, batch: Batch) -> None:
        """Move the teacher's average towards the encoder."""
        self._average(self.teacher_decay)

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        teacher = dict(self.teacher.named_buffers())
        for name, value in [*self.encoder.named_parameters(), *self.encoder.named_buffers()]:
            if value.is_floating_point():
                teacher[name].lerp_(value, 1 - decay)
            else:
                teacher[name].copy_(value)

    def _check_level(self) -> None:
        try:
            with torch.no_grad():
                was_training = self.encoder.training
                levels = self.encoder.eval().features(next(self.encoder.parameters()).new_zeros(1, *self.shape))
                self.encoder.train(was_training)
        except NotImplementedError:
            raise ValueError(
                f"encoder: GramVAE compares features, and {type(self.encoder).__name__} has none by level; choose a "
                "network, such as network=conv"
            ) from None
        if self.level not in levels:
            raise ValueError(
                f"level: the network has {', '.join(levels)} and no '{self.level}'{did_you_mean(self.level, levels)}"
            )
        if levels[self.level].ndim < 4:
            raise ValueError(
                f"level: GramVAE compares the positions of a feature map, and '{self.level}' has none; it is a vector "
                f"of {levels[self.level].shape[1]}"
            )


def _without_parameters(module: nn.Module) -> Any:
    """A copy whose parameters are buffers: no optimiser sees them, and checkpoints hold them."""
    twin = copy.deepcopy(module)
    for part in twin.modules():
        for name, value in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, value.detach().clone())
    return twin
