"""Weights of the groups' rates that keep any group from being left unused."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vaebench.hardware import collective

LEAST = 0.01  # nats, so that a group with zero rate still has a weight


def balance_weights(rates_BG: Tensor, sizes: Sequence[float]) -> Tensor:
    r"""Return weights in proportion to a group's rate for its size, with a mean of 1, so that small rates cost little.

    .. math:: \gamma_l \propto \frac{E|R_l| + 0.01}{\alpha_l}, \quad \frac1L \sum_l \gamma_l = 1

    References:
        NVAE: A Deep Hierarchical Variational Autoencoder (Vahdat and Kautz, 2020), https://arxiv.org/abs/2007.03898
        (appendix A, with the constants of the authors' code)
    Args:
        rates_BG: R, nats, shape (B, G); the mean is over the batch of all processes.
        sizes: alpha of each group: positions of its level, shared among the level's groups; only ratios matter.

    Returns: shape (G,), without gradients.
    """
    mean_G = collective.gather(rates_BG.detach()).abs().mean(0) + LEAST
    weights = mean_G / torch.tensor(list(sizes), dtype=rates_BG.dtype, device=rates_BG.device)
    return weights / weights.mean()
