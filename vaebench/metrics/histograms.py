"""Codes and factors as counts: the mutual information that several metrics of disentanglement are made of."""

from __future__ import annotations

import torch
from torch import Tensor


def discretize(z: Tensor, num_bins: int) -> Tensor:
    """Return the bin of every value, int64, shape (N, D): equal widths between each column's least and largest value.

    A column that does not vary has one bin.
    """
    low, high = z.amin(0), z.amax(0)
    width = torch.where(high > low, high - low, torch.ones_like(low))
    return ((z - low) / width * num_bins).long().clamp(0, num_bins - 1)


def mutual_information(a: Tensor, b: Tensor) -> Tensor:
    """Return I(a_i; b_j) of every pair of columns, nats, float64, shape (A, B): the plug-in estimate from counts.

    Args:
        a: Whole numbers from 0, shape (N, A).
        b: Whole numbers from 0, shape (N, B).
    """
    n = len(a)
    height, width = int(a.max()) + 1, int(b.max()) + 1
    found = torch.zeros(a.shape[1], b.shape[1], dtype=torch.float64)
    for i in range(a.shape[1]):
        for j in range(b.shape[1]):
            joint = torch.bincount(a[:, i] * width + b[:, j], minlength=height * width).double().reshape(height, width)
            joint = joint / n
            independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
            found[i, j] = torch.special.xlogy(joint, joint / independent.clamp_min(1e-300)).sum()
    return found.clamp_min(0)


def entropy(b: Tensor) -> Tensor:
    """Return H(b_j) of every column of whole numbers from 0, nats, float64, shape (B,)."""
    shares = [torch.bincount(column).double() / len(b) for column in b.T]
    return torch.stack([-torch.special.xlogy(share, share).sum() for share in shares])
