"""An energy-based model, trained by contrastive divergence."""

from __future__ import annotations

from typing import ClassVar

from vaebench.core import Batch, Loss
from vaebench.models.energy_based import EnergyBasedModel


class EBM(EnergyBasedModel):
    """An energy whose gradient is that of the likelihood, estimated with Markov chains.

    The update is not the gradient of a loss of the data, so it is a trainer: `trainer=contrastive_divergence`.

    References:
        Training Products of Experts by Minimizing Contrastive Divergence (Hinton, 2002),
        https://doi.org/10.1162/089976602760128018
        Implicit Generation and Modeling with Energy-Based Models (Du & Mordatch, 2019),
        https://arxiv.org/abs/1903.08689
    Deviations:
        Fully connected layers of one width, and a Gaussian that confines the density (see `EnergyBasedModel`).
    Args: those of `EnergyBasedModel`.
    """

    trainer: ClassVar[str] = "contrastive_divergence"
    best_criterion: ClassVar[tuple[str, str] | None] = None  # the contrast is 0 for the best model and the worst

    def loss(self, batch: Batch, step: int) -> Loss:
        """Refuse: there is no loss without chains.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"EBM has no loss of a batch alone; train it with trainer={self.trainer}")
