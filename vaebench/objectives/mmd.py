"""The maximum mean discrepancy between two samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def imq_mmd(z: Tensor, other: Tensor, bandwidth: float, scales: Sequence[float] = SCALES) -> Tensor:
    r"""Estimate the squared MMD of two samples with inverse multiquadratic kernels, without bias.

    .. math:: \frac{1}{n(n-1)} \sum_{i \ne j} [k(z_i, z_j) + k(z'_i, z'_j)] - \frac{2}{n^2} \sum_{i,j} k(z_i, z'_j),
              \quad k(a, b) = \sum_s \frac{s C}{s C + \|a - b\|^2}

    It may be negative where the samples are of one distribution.

    References:
        Wasserstein Auto-Encoders (Tolstikhin et al., 2018), https://arxiv.org/abs/1711.01558 (Algorithm 2), whose
        code sums the kernel over these seven scales
    Args:
        z: Shape (n, D), n >= 2.
        other: Shape (n, D).
        bandwidth: C, the expected squared distance of two draws from the prior: 2 D for N(0, I).
        scales: s.

    Returns: a scalar without unit.

    Raises:
        ValueError: if there are fewer than two rows.
    """
    n = len(z)
    if n < 2:
        raise ValueError(f"the MMD compares pairs, and needs at least two examples in every batch; got {n}")
    within = _kernel(z, z, bandwidth, scales) + _kernel(other, other, bandwidth, scales)
    pairs = within.sum() - within.diagonal().sum()
    return pairs / (n * (n - 1)) - 2 * _kernel(z, other, bandwidth, scales).mean()


def _kernel(a: Tensor, b: Tensor, bandwidth: float, scales: Sequence[float]) -> Tensor:
    squared = (a[:, None] - b).square().sum(-1)
    return torch.stack([s * bandwidth / (s * bandwidth + squared) for s in scales]).sum(0)
