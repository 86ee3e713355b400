"""Implicit equations x = update(x), each row by itself, solved to a tolerance."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

MAX_ITERATIONS = 10
MAX_NEWTON_STEPS = 30
MAX_HALVINGS = 12


class Solution(NamedTuple):
    """A root of an implicit equation.

    Attributes:
        x: Shape (B, D); the first guess where there is none.
        is_solved: Which rows reached the tolerance, shape (B,).
        is_easy: Whether every row's update is a strong contraction.
    """

    x: Tensor
    is_solved: Tensor
    is_easy: bool

    @property
    def mask(self) -> Tensor | None:
        """Which rows were solved, shape (B,), None where all were, easily."""
        return None if self.is_easy else self.is_solved


@torch.no_grad()
def solve(
    update: Callable[[Tensor], Tensor],
    start: Tensor,
    jacobian: Callable[[Tensor], Tensor],
    tolerance: float | None = None,
) -> Solution:
    """Find the fixed point x = update(x) near `start` of shape (B, D); no gradient goes through.

    The update is iterated; where it does not contract, damped Newton steps follow.

    Args:
        update: Maps (B, D) to (B, D), each row by itself.
        start: First guess.
        jacobian: J of the update at x, shape (B, D, D), with J_jk the derivative of entry j by entry k of x.
        tolerance: Largest error of an entry, relative to 1 + the largest magnitude of the first guess; by default
            epsilon^(3/4) of the dtype: 6e-6 in float32, 2e-12 in float64.
    """
    tolerance = tolerance_or_default(tolerance, start)
    x, is_easy = iterate(update, start, tolerance * (1 + start.abs().max().item()))
    if is_easy:
        return Solution(x, torch.ones(len(x), dtype=torch.bool, device=x.device), True)
    return Solution(*_newton(update, start, jacobian, tolerance * (1 + start.abs().amax(-1))), False)


def tolerance_or_default(given: float | None, like: Tensor) -> float:
    """The tolerance that `solve` works to."""
    return torch.finfo(like.dtype).eps ** 0.75 if given is None else given


def iterate(update: Callable[[Tensor], Tensor], x: Tensor, bound: float) -> tuple[Tensor, bool]:
    """Iterate x = update(x) while the changes shrink fast.

    Returns:
        The last x, in the shape of the first, and whether the largest error of an entry is below the bound.
    """
    change = math.inf
    for _ in range(MAX_ITERATIONS):
        x, before = update(x), x
        change, last = torch.dist(x, before, math.inf).item(), change
        # Successive changes shrink by about this ratio, which bounds the remaining error.
        if change <= bound or (last < math.inf and change * change <= 0.1 * bound * last):
            return x, True
        if not change < 0.5 * last:
            break
    return x, False


def _newton(
    update: Callable[[Tensor], Tensor], start: Tensor, jacobian: Callable[[Tensor], Tensor], bound: Tensor
) -> tuple[Tensor, Tensor]:
    """Damped Newton steps on update(x) - x = 0; each row halves its step until its residual falls.

    Returns:
        The roots, or the start where none was found, and which rows are roots to the bound (B,).
    """
    eye = torch.eye(start.shape[-1], dtype=start.dtype, device=start.device)
    x, residual = start, update(start) - start
    size = residual.abs().amax(-1)
    for _ in range(MAX_NEWTON_STEPS):
        if (size <= bound).all():
            break
        direction = torch.linalg.solve_ex(eye - jacobian(x), residual)[0]
        damping = torch.ones_like(size)
        for _ in range(MAX_HALVINGS):
            trial = x + damping[:, None] * direction
            trial_residual = update(trial) - trial
            trial_size = trial_residual.abs().amax(-1)
            is_better = (trial_size < size) | (size <= bound)
            if is_better.all():
                break
            damping = torch.where(is_better, damping, 0.5 * damping)
        x = torch.where(is_better[:, None], trial, x)
        residual = torch.where(is_better[:, None], trial_residual, residual)
        size = torch.where(is_better, trial_size, size)
    is_solved = size <= bound
    return torch.where(is_solved[:, None], x, start), is_solved
