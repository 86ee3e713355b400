r"""The Nouveau VAE."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from vaebench.core import Batch, Loss
from vaebench.messages import check_range
from vaebench.models.hierarchy import HierarchicalModel, HierarchyComponents, logged
from vaebench.networks.batch_norm import BatchNorm
from vaebench.networks.hierarchy import HierarchicalNetwork
from vaebench.networks.nvae import NVAENetwork
from vaebench.objectives.kl_balancing import balance_weights
from vaebench.objectives.spectral import SpectralNorms
from vaebench.schedules import Schedule, WarmupScheduler, as_schedule


class NVAE(HierarchicalModel):
    r"""NVAE (Vahdat and Kautz, 2020).

    Groups of latents over pictures of growing size, with posteriors relative to the prior (see `networks.nvae`):

    .. math:: L = -E_q[\log p(x|z)] + \beta(t) \sum_l \gamma_l E_q[KL(q(z_l|z_{<l}, x) \| p(z_l|z_{<l}))]
                  + \lambda \Big(\sum_i s_i + \sum_j \max |g_j|\Big)      (eq. 1 and section 3.2, appendix A)

    While beta is below 1 the weights gamma follow the groups' rates (`objectives.kl_balancing`), from then on they are
    1. s_i are the largest singular values of the convolutions (`objectives.spectral`), g_j the scales of the batch
    normalisations. Validation reports the ELBO.

    References:
        NVAE: A Deep Hierarchical Variational Autoencoder (Vahdat and Kautz, 2020), https://arxiv.org/abs/2007.03898
    Args: those of `HierarchicalModel`, and
        network: Description of the cells; 6 groups, ours, for small pictures and few cores. The paper's are
            `model/network=nvae_mnist` and `nvae_cifar10`.
        beta: Weight of the rate; a line from 0.01 to 1 over 1,000 steps. The paper's takes 30 % of the training.
        spectral_weight: lambda, a number or a schedule, >= 0; 0.01 as in the paper, which comes down to it from 10 or 1
            during the warm-up.
        balances_rates: Whether the weights gamma follow the rates while beta is below 1.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        network: HierarchicalNetwork = NVAENetwork(),  # noqa: B008 - a frozen description
        beta: float | Schedule = WarmupScheduler(),  # noqa: B008
        spectral_weight: float | Schedule = 0.01,
        balances_rates: bool = True,
        **components: Unpack[HierarchyComponents],
    ) -> None:
        super().__init__(shape, network=network, beta=beta, **components)
        self.spectral_weight = as_schedule(spectral_weight)
        for step in (0, 10**9):
            check_range("spectral_weight", self.spectral_weight(step), at_least=0, below=math.inf)
        self.balances_rates = balances_rates
        self.couples_batch = self.couples_batch or balances_rates  # type: ignore[misc]
        layers = [module for module in self.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
        self.spectral_norms = SpectralNorms(layers)
        shapes = self.group_shapes
        self._sizes = [math.prod(shape[1:]) / Counter(shapes)[shape] for shape in shapes]

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return D + beta(step) sum of gamma R, and the regularisation of the layers; nats per example."""
        terms, rates_BG = self.group_terms(batch.x, batch.y)
        beta, weight = self.beta(step), self.spectral_weight(step)
        is_balanced = self.balances_rates and beta < 1
        balanced = (rates_BG * balance_weights(rates_BG, self._sizes)).sum(-1) if is_balanced else terms.rate
        spectral = self.regularization()
        total = terms.distortion + beta * balanced + weight * spectral
        return Loss.mean(total, **logged(terms, rates_BG, beta), spectral=spectral)

    def regularization(self) -> Tensor:
        """Return the sums of the spectral norms and of the batch normalisations' largest scales, a scalar."""
        scales = [norm.weight.abs().amax() for norm in self.modules() if isinstance(norm, BatchNorm)]
        return self.spectral_norms() + (torch.stack(scales).sum() if scales else 0.0)
