r"""Sliced score matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from typing_extensions import Unpack

from vaebench.core import Batch, Loss
from vaebench.hardware import collective
from vaebench.messages import check_range, did_you_mean
from vaebench.models.energy_based import ENERGY_MLP, EnergyBasedModel, EnergyComponents, check_smooth
from vaebench.objectives.score_matching import sliced_score_matching

PROJECTIONS = ("rademacher", "gaussian")


class SlicedScoreMatching(EnergyBasedModel):
    r"""An energy trained by sliced score matching (Song et al., 2019), at the cost of one derivative per projection.

    .. math:: L = E\Big[ \tfrac12 \|\nabla U(u)\|^2 - \frac1M \sum_m v_m^\top \nabla^2 U(u) \, v_m \Big]      (eq. 8)

    This is the variant of reduced variance, SSM-VR: the norm is not projected.

    References:
        Sliced Score Matching (Song et al., 2019), https://arxiv.org/abs/1905.07088
    Args: those of `EnergyBasedModel`, the network's activation smooth, and
        num_projections: M, >= 1.
        projection: Directions v of "rademacher" (signs), or "gaussian" entries.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        num_projections: int = 1,
        projection: Literal["rademacher", "gaussian"] = "rademacher",
        **components: Unpack[EnergyComponents],
    ) -> None:
        check_smooth(components.get("network", ENERGY_MLP))
        check_range("num_projections", num_projections, at_least=1, whole=True)
        if projection not in PROJECTIONS:
            raise ValueError(f"projection: unknown name '{projection}'{did_you_mean(projection, PROJECTIONS)}")
        super().__init__(shape, **components)
        self.num_projections, self.projection = num_projections, projection

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return the objective, per squared standardised unit."""
        u = self.noisy(batch.x)
        v = collective.standard_normal((self.num_projections, *u.shape), u, dim=1)
        if self.projection == "rademacher":
            v = torch.where(v < 0, -1.0, 1.0).to(u)
        norm, trace = sliced_score_matching(self.energy_function, u, v)
        return Loss.mean(norm + trace, half_square=norm, trace=trace)
