r"""The Gram loss: how alike the positions of a picture are to each other, in the features of two networks."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaebench.messages import NamedArguments, did_you_mean

Negatives = Literal["clamp", "teacher", "keep"]


class GramLoss(NamedArguments, nn.Module):
    r"""Mean squared difference of the Gram matrices of a student's and a teacher's features.

    .. math:: L = \frac{1}{B N^2} \sum_b \| S_b S_b^T - T_b T_b^T \|^2

    with the rows of S and T (N, D) of length one, so that their products are cosines. Over the batch (img_level=False)
    the B N positions of all pictures are compared with each other. The teacher gets no gradient, and everything is
    computed in float32.

    References:
        DINOv3 (Siméoni et al., 2025), https://arxiv.org/abs/2508.10104 (section 4.2)
    Deviations:
        Which cosines are below zero is looked up before any is changed, for the student too. The published code sets
        the teacher's to zero first and then finds none, so that its option for the student does nothing.
    Args:
        img_level: Whether each picture is compared within itself; a call may say otherwise.
        negatives: What becomes of cosines below zero: `clamp` sets them to zero in both, `teacher` only where the
            teacher's is below zero too, `keep` leaves them.
    """

    def __init__(self, img_level: bool = True, negatives: Negatives = "clamp") -> None:
        super().__init__()
        if negatives not in get_args(Negatives):
            raise ValueError(f"negatives: unknown name '{negatives}'{did_you_mean(negatives, get_args(Negatives))}")
        self.img_level, self.negatives = img_level, negatives

    def forward(self, student_features: Tensor, teacher_features: Tensor, img_level: bool | None = None) -> Tensor:
        """Return the loss, a scalar.

        Args:
            student_features: A feature map (B, D, H, W) or tokens (B, N, D).
            teacher_features: Likewise; D may differ.
            img_level: In place of the constructor's.

        Raises:
            ValueError: if features have another number of dimensions, or the two do not have the same positions.
        """
        is_per_picture = self.img_level if img_level is None else img_level
        with torch.autocast(student_features.device.type, enabled=False):
            student, teacher = tokens(student_features), tokens(teacher_features.detach())
            if student.shape[:2] != teacher.shape[:2]:
                raise ValueError(
                    f"expected student and teacher to have the same pictures and positions, got "
                    f"{tuple(student_features.shape)} and {tuple(teacher_features.shape)}"
                )
            gram, target = _cosines(student, is_per_picture), _cosines(teacher, is_per_picture)
            is_negative = {"clamp": gram < 0, "teacher": (gram < 0) & (target < 0)}.get(self.negatives)
            if is_negative is not None:
                gram, target = gram.masked_fill(is_negative, 0), target.clamp_min(0)
            return (gram - target).square().mean()


def tokens(features: Tensor) -> Tensor:
    """Return features as unit vectors of positions, float32 (B, N, D), of a map (B, D, H, W) or tokens (B, N, D)."""
    if features.ndim not in (3, 4):
        raise ValueError(f"expected features (B, D, H, W) or tokens (B, N, D), got shape {tuple(features.shape)}")
    features = features.flatten(2).mT if features.ndim == 4 else features
    return F.normalize(features if features.dtype == torch.float64 else features.float(), dim=-1)


def _cosines(tokens_BND: Tensor, is_per_picture: bool) -> Tensor:
    rows = tokens_BND if is_per_picture else tokens_BND.flatten(0, 1)
    return rows @ rows.mT
