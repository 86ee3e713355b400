r"""Score matching."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from typing_extensions import Unpack

from vaebench.core import Batch, Loss, Split
from vaebench.models.energy_based import ENERGY_MLP, EnergyBasedModel, EnergyComponents, check_smooth
from vaebench.objectives.score_matching import exact_score_matching

MANY = 256  # derivatives in every step, above which a caution is printed
_log = logging.getLogger(__name__)


class ScoreMatching(EnergyBasedModel):
    r"""An energy trained by exact score matching (Hyvarinen, 2005): no chains, and no normaliser.

    .. math:: L = E\big[ \tfrac12 \|\nabla U(u)\|^2 - tr \nabla^2 U(u) \big]      (eq. 4)

    The trace costs one derivative for each dimension; `sliced_score_matching` estimates it.

    References:
        Estimation of Non-Normalized Statistical Models by Score Matching (Hyvarinen, 2005),
        https://jmlr.org/papers/v6/hyvarinen05a.html
    Args: those of `EnergyBasedModel`; the network's activation must be smooth.
    """

    def __init__(self, shape: Sequence[int], **components: Unpack[EnergyComponents]) -> None:
        check_smooth(components.get("network", ENERGY_MLP))
        super().__init__(shape, **components)

    def before_training(self, train: Split) -> None:
        """Find m and c, and say so where a step is expensive."""
        super().before_training(train)
        if (num_dims := self.energy_function.num_dims) > MANY:
            _log.warning(
                "model=score_matching takes a derivative for each of %s dimensions in every step; "
                "model=sliced_score_matching estimates their sum from one",
                f"{num_dims:,}",
            )

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return the objective, per squared standardised unit."""
        norm, trace = exact_score_matching(self.energy_function, self.noisy(batch.x))
        return Loss.mean(norm + trace, half_square=norm, trace=trace)
