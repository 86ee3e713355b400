r"""Denoising score matching."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vaebench.core import Batch, Loss
from vaebench.hardware import collective
from vaebench.messages import check_range
from vaebench.models.energy_based import ENERGY_MLP, EnergyBasedModel
from vaebench.networks import Network
from vaebench.objectives.score_matching import denoising_score_matching


class DenoisingScoreMatching(EnergyBasedModel):
    r"""An energy trained by denoising score matching (Vincent, 2011): its gradient points from noisy data to the data.

    .. math:: L = E\big[ \tfrac12 \| \epsilon - \sigma \nabla U(u + \sigma \epsilon) \|^2 \big], \quad
        \epsilon \sim N(0, I)      (eq. 11)

    The density that it learns is the data's smoothed by N(0, sigma^2 I).

    References:
        A Connection Between Score Matching and Denoising Autoencoders (Vincent, 2011),
        https://doi.org/10.1162/NECO_a_00142
    Deviations:
        The objective times sigma^2, so that its size does not depend on sigma.
    Args: those of `EnergyBasedModel` except data_noise, and
        noise_scale: sigma > 0, in units of the data's spread.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        network: Network = ENERGY_MLP,
        reference_scale: float = 2.0,
        noise_scale: float = 0.1,
    ) -> None:
        check_range("noise_scale", noise_scale, above=0, below=math.inf)
        super().__init__(shape, network=network, reference_scale=reference_scale, data_noise=0.0)
        self.noise_scale = noise_scale

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return the objective, half the squared error of the noise."""
        u = self.standardize(batch.x)
        noise = collective.standard_normal(tuple(u.shape), u)
        return Loss.mean(denoising_score_matching(self.energy_function, u, noise, self.noise_scale))
