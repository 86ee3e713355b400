r"""Score matching: objectives that compare gradients of an energy with data, so that its constant plays no part.

The score is s(x) = grad log p(x) = -grad U(x). Each function takes an energy (B, D) -> (B,) and data (B, D), and
returns a value for each example with a graph to the energy's weights, also where gradients are switched off.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Energy = Callable[[Tensor], Tensor]


def score_of(energy: Energy, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x as a leaf, and s(x) = -grad U(x), both of shape (B, D), the latter with its graph."""
    x = x.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
    return x, -gradient


def exact_score_matching(energy: Energy, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""Hyvarinen's objective, its trace by one derivative for each dimension.

    .. math:: J(x) = \tfrac12 \|s(x)\|^2 + tr \nabla s(x)

    Returns:
        The two terms, each of shape (B,).
    """
    with torch.enable_grad():
        x, score = score_of(energy, x)
        trace = torch.zeros_like(score[:, 0])
        for d in range(x.shape[1]):
            (row,) = torch.autograd.grad(score[:, d].sum(), x, create_graph=True)
            trace = trace + row[:, d]
        return score.square().sum(-1) / 2, trace


def sliced_score_matching(energy: Energy, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    r"""The same with the trace estimated along random directions, E[v v'] = I.

    .. math:: J(x) = \tfrac12 \|s(x)\|^2 + \frac1M \sum_m v_m^\top \nabla s(x) \, v_m

    Args:
        energy: U.
        x: Data, shape (B, D).
        directions: v, shape (M, B, D).

    Returns:
        The two terms, each of shape (B,).
    """
    with torch.enable_grad():
        x, score = score_of(energy, x)
        curvature = torch.zeros_like(score[:, 0])
        for v in directions:
            (product,) = torch.autograd.grad((score * v).sum(), x, create_graph=True)
            curvature = curvature + (product * v).sum(-1)
        return score.square().sum(-1) / 2, curvature / len(directions)


def denoising_score_matching(energy: Energy, x: Tensor, noise: Tensor, noise_scale: float) -> Tensor:
    r"""Vincent's objective times sigma^2: the score of noisy data points back to the data; shape (B,).

    .. math:: J(x) = \tfrac12 \| \sigma s(x + \sigma \epsilon) + \epsilon \|^2

    Its minimum is the score of the data's density smoothed by N(0, sigma^2 I).

    Args:
        energy: U.
        x: Data, shape (B, D).
        noise: epsilon, from N(0, 1), shape (B, D).
        noise_scale: sigma > 0.
    """
    with torch.enable_grad():
        _, score = score_of(energy, x + noise_scale * noise)
        return (noise_scale * score + noise).square().sum(-1) / 2
