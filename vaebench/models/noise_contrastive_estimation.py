r"""Noise-contrastive estimation."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from typing_extensions import Unpack

from vaebench.core import Batch, Loss, Split
from vaebench.hardware import collective
from vaebench.messages import check_range
from vaebench.models.energy_based import EnergyBasedModel, EnergyComponents, standardized

SHRINKAGE = 1e-2  # of the noise's covariance towards the identity, in case the data lie on a plane
MANY = 2000  # dimensions whose covariance takes seconds
_log = logging.getLogger(__name__)


class NoiseContrastiveEstimation(EnergyBasedModel):
    r"""An energy and its normaliser, trained to tell data from noise (Gutmann & Hyvarinen, 2010).

    .. math:: L = -E_u[\log \sigma(G(u))] - \nu E_{v \sim p_n}[\log \sigma(-G(v))], \quad
        G(u) = -U(u) - c - \log p_n(u) - \log \nu

    The noise is the Gaussian of the data's mean and covariance. At the minimum c is log Z, so that -U - c is a
    normalised log-density.

    References:
        Noise-Contrastive Estimation of Unnormalized Statistical Models (Gutmann & Hyvarinen, 2010),
        https://proceedings.mlr.press/v9/gutmann10a.html
    Args: those of `EnergyBasedModel`, and
        noise_ratio: nu, draws of noise for each example, >= 1.
    """

    noise_factor: Tensor

    def __init__(self, shape: Sequence[int], *, noise_ratio: int = 1, **components: Unpack[EnergyComponents]) -> None:
        check_range("noise_ratio", noise_ratio, at_least=1, whole=True)
        super().__init__(shape, **components)
        self.noise_ratio = noise_ratio
        self.log_normalizer = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_factor", torch.eye(self.energy_function.num_dims))

    def log_density(self, x: Tensor) -> Tensor:
        """log p(x) as the model has learned to normalise it, nats, x (B, *shape) -> (B,)."""
        return -self.energy(x) - self.log_normalizer - self.energy_function.num_dims * self.scale.log()

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return the cross-entropy of telling data from noise, nats per example."""
        u = self.noisy(batch.x)
        noise = collective.standard_normal((self.noise_ratio, *u.shape), u, dim=1) @ self.noise_factor.mT
        of_data = softplus(-self._log_odds(u))
        of_noise = softplus(self._log_odds(noise.flatten(0, 1))).view(self.noise_ratio, -1).sum(0)
        return Loss.mean(of_data + of_noise, of_data=of_data, of_noise=of_noise, log_normalizer=self.log_normalizer)

    def before_training(self, train: Split) -> None:
        """Find mean and scale, and the covariance of the noise."""
        super().before_training(train)
        num_dims = len(self.noise_factor)
        if num_dims > MANY:
            _log.info("noise: factorising a covariance of %s x %s before the first step", num_dims, num_dims)
        identity = torch.eye(num_dims, dtype=torch.float64, device=self.noise_factor.device)
        covariance = torch.zeros_like(identity)
        for u in standardized(self, train):
            covariance.addmm_(u.mT, u, alpha=1 / len(train))
        factor = torch.linalg.cholesky((1 - SHRINKAGE) * covariance + SHRINKAGE * identity)
        self.noise_factor.copy_(factor)

    def _log_odds(self, u: Tensor) -> Tensor:
        white = torch.linalg.solve_triangular(self.noise_factor, u.mT, upper=False).mT
        log_noise = -white.square().sum(-1) / 2 - self.noise_factor.diagonal().log().sum()
        log_noise = log_noise - len(self.noise_factor) * math.log(2 * math.pi) / 2
        return -self.energy_function(u) - self.log_normalizer - log_noise - math.log(self.noise_ratio)
