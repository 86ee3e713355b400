r"""Hamiltonian dynamics on a Riemannian manifold, for flows that are trained through.

The Hamiltonian is

.. math:: H(z, \rho) = U(z) + \tfrac12 \log\det G(z) + \tfrac12 \rho^T G^{-1}(z) \rho

and the integrator the generalised leapfrog (Girolami and Calderhead, 2011,
https://doi.org/10.1111/j.1467-9868.2010.00765.x, section 6), whose two implicit equations are solved to a tolerance, so
that a step is reversible and preserves volume.

Where the step is too long for the curvature, an equation has no solution, or one from which the way back leads
elsewhere. Such a step is refused: the point stays and its momentum is reversed. Steps that can be taken back and the
reversal in place of the others together are still one volume-preserving bijection, so that a bound stays a bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vaebench.objectives.riemannian_metric import RiemannianMetric, log_det

MAX_ITERATIONS = 10
MAX_NEWTON_STEPS = 30
MAX_HALVINGS = 12
EASY_CONTRACTION = 0.2  # what the first iteration must leave of the first guess's error


class Point(NamedTuple):
    """A point z of the manifold with what the integrator needs there.

    Attributes:
        z: Shape (B, D).
        grad_potential: Gradient of U at z, shape (B, D).
        value: What the potential computed on the way, shape (B,).
        weights: Weights of the centroids, shape (B, N).
        inverse: G^-1(z), shape (B, D, D).
        factor: Its Cholesky factor, shape (B, D, D).
        metric: G(z), shape (B, D, D).
    """

    z: Tensor
    grad_potential: Tensor
    value: Tensor
    weights: Tensor
    inverse: Tensor
    factor: Tensor
    metric: Tensor


Potential = Callable[[Tensor], tuple[Tensor, Tensor]]
"""At z of shape (B, D): the gradient of U, shape (B, D), and a value that the caller wants to keep, shape (B,)."""


def point(z: Tensor, potential: Potential, metric: RiemannianMetric) -> Point:
    """Evaluate potential and metric at z of shape (B, D)."""
    grad_potential, value = potential(z)
    weights = metric.weights(z)
    inverse = metric.inverse_at(weights)
    factor, _ = torch.linalg.cholesky_ex(inverse)  # unchecked: a metric that is not finite shows in the loss
    return Point(z, grad_potential, value, weights, inverse, factor, torch.cholesky_inverse(factor))


def draw_momentum(at: Point, noise: Tensor, beta: float) -> Tensor:
    """Turn standard normal noise (B, D) into rho ~ N(0, G(z) / beta), shape (B, D)."""
    # G^-1 = L L^T, so L^-T noise has covariance L^-T L^-1 = G.
    return torch.linalg.solve_triangular(at.factor.mT, noise[..., None], upper=True)[..., 0] / beta**0.5


def momentum_log_prob(rho: Tensor, at: Point, beta: float = 1.0) -> Tensor:
    """log N(rho; 0, G(z) / beta), nats, shape (B,)."""
    quadratic = beta * (rho * apply(at.inverse, rho)).sum(-1)
    normaliser = log_det(at.factor) + rho.shape[-1] * torch.tensor(beta / (2 * torch.pi)).log().item()
    return 0.5 * (normaliser - quadratic)


def apply(matrix: Tensor, vector: Tensor) -> Tensor:
    """Product of (B, D, D) and (B, D)."""
    return (matrix @ vector[..., None])[..., 0]


def outer(vector: Tensor) -> Tensor:
    """v v^T for (B, D); shape (B, D, D)."""
    return vector[..., :, None] * vector[..., None, :]


def grad_hamiltonian(at: Point, rho: Tensor, metric: RiemannianMetric) -> Tensor:
    """Gradient of H in z at a fixed momentum, shape (B, D)."""
    return at.grad_potential + 0.5 * metric.pull(at.z, at.weights, outer(rho) - at.metric)


def generalised_leapfrog(
    at: Point,
    rho: Tensor,
    step_size: float,
    metric: RiemannianMetric,
    potential: Potential,
    tolerance: float | None = None,
) -> tuple[Point, Tensor, Tensor]:
    """Take one step of size epsilon.

    Args:
        at: Where the step starts.
        rho: Momentum, shape (B, D).
        step_size: epsilon.
        metric: The metric.
        potential: U, by its gradient.
        tolerance: Of the implicit equations, see `solve`.

    Returns:
        The new point, the new momentum, and which steps were refused, shape (B,).
    """
    half = 0.5 * step_size
    middle = half_kick(at, rho, half, metric, tolerance)
    end = drift(at, middle.x, half, metric, tolerance)
    arrived = point(end.x, potential, metric)
    kicked = middle.x - half * grad_hamiltonian(arrived, middle.x, metric)
    if middle.is_easy and end.is_easy and _is_way_back_easy(at, middle.x, arrived, kicked, half, metric, tolerance):
        return arrived, kicked, torch.zeros_like(middle.is_solved)
    with torch.no_grad():
        back = half_kick(arrived, -kicked, half, metric, tolerance)
        home = drift(arrived, back.x, half, metric, tolerance)
        error = torch.maximum((home.x - at.z).abs().amax(-1), (back.x + middle.x).abs().amax(-1))
        scale = 1 + torch.maximum(at.z.abs().amax(-1), middle.x.abs().amax(-1))
        close = error <= 100 * _tolerance(rho, tolerance) * scale
        taken = middle.is_solved & end.is_solved & back.is_solved & home.is_solved & close
    return select(taken, arrived, at), torch.where(taken[:, None], kicked, -rho), ~taken


@torch.no_grad()
def _is_way_back_easy(
    at: Point,
    middle: Tensor,
    arrived: Point,
    kicked: Tensor,
    half: float,
    metric: RiemannianMetric,
    tolerance: float | None,
) -> bool:
    """Whether the way back, whose roots are known to be -middle and at.z, needs no solving to be sure of them.

    An equation that was easy on the way there need not be so on the way back: a step may leap over a centroid. So the
    first iteration from the first guess is taken, and must come much closer to the root in every row.
    """

    def contracts(guess: Tensor, image: Tensor, root: Tensor) -> Tensor:
        slack = _tolerance(root, tolerance) * (1 + guess.abs().amax(-1))
        return (image - root).abs().amax(-1) <= EASY_CONTRACTION * (guess - root).abs().amax(-1) + slack

    image = -kicked - half * grad_hamiltonian(arrived, kicked, metric)
    is_easy = contracts(-kicked, image, -middle)
    start = arrived.z - half * apply(arrived.inverse, middle)
    guess = 2 * start - arrived.z
    is_easy &= contracts(guess, start - half * apply(metric.inverse(guess), middle), at.z)
    return bool(is_easy.all())


def select(mask: Tensor, yes: Point, no: Point) -> Point:
    """Rows of `yes` where the mask (B,) holds, of `no` elsewhere."""
    return Point(*(torch.where(mask.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(yes, no, strict=True)))


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


def half_kick(at: Point, rho: Tensor, half: float, metric: RiemannianMetric, tolerance: float | None) -> Solution:
    """Solve rho' = rho - half * dH/dz(z, rho')."""
    kicked = rho - half * (at.grad_potential - 0.5 * metric.pull(at.z, at.weights, at.metric))
    return solve(
        lambda r: kicked - 0.5 * half * metric.pull(at.z, at.weights, outer(r)),
        rho,
        lambda r: -half * metric.pull_jacobian(at.z, at.weights, r),
        tolerance,
    )


def drift(at: Point, rho: Tensor, half: float, metric: RiemannianMetric, tolerance: float | None) -> Solution:
    """Solve z' = z + half * (G^-1(z) + G^-1(z')) rho."""
    step = half * apply(at.inverse, rho)
    start = at.z + step
    return solve(
        lambda end: start + half * apply(metric.inverse(end), rho),
        start + step,
        lambda end: half * metric.pull_jacobian(end, metric.weights(end), rho).mT,
        tolerance,
    )


def solve(
    update: Callable[[Tensor], Tensor],
    start: Tensor,
    jacobian: Callable[[Tensor], Tensor],
    tolerance: float | None = None,
) -> Solution:
    """Find the fixed point x = update(x) near `start` of shape (B, D).

    The update is iterated; where it is no contraction, damped Newton steps follow. Gradients come from the implicit
    function theorem: the iterations leave no trace, and the adjoint equation v = g + J^T v is solved directly.

    Args:
        update: Maps (B, D) to (B, D), each row by itself.
        start: First guess.
        jacobian: J of the update at x, shape (B, D, D), with J_jk the derivative of entry j by entry k of x.
        tolerance: Largest error of an entry, relative to 1 + the largest magnitude of the first guess; by default
            epsilon^(3/4) of the dtype: 6e-6 in float32, 2e-12 in float64.
    """
    with torch.no_grad():
        first = start.detach()
        x, is_easy = _iterate(update, first, _tolerance(start, tolerance) * (1 + first.abs().max().item()))
        is_solved = torch.ones(len(x), dtype=torch.bool, device=x.device)
        if not is_easy:
            bound = _tolerance(start, tolerance) * (1 + first.abs().amax(-1))
            x, is_solved = _newton(update, first, jacobian, bound)
    if not torch.is_grad_enabled():
        return Solution(x, is_solved, is_easy)
    image = update(x)
    if image.requires_grad:
        with torch.no_grad():
            eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
            adjoint = eye - jacobian(x).mT
            adjoint = adjoint if is_easy else torch.where(is_solved[:, None, None], adjoint, eye)
        # On a view, since a hook also fires where a gradient with respect to its own tensor is asked for.
        image.register_hook(lambda grad: torch.linalg.solve_ex(adjoint, grad)[0])
        image = image.view_as(image)
    return Solution(image if is_easy else torch.where(is_solved[:, None], image, x), is_solved, is_easy)


def _tolerance(like: Tensor, given: float | None) -> float:
    return torch.finfo(like.dtype).eps ** 0.75 if given is None else given


def _iterate(update: Callable[[Tensor], Tensor], x: Tensor, bound: float) -> tuple[Tensor, bool]:
    """Iterate while the changes shrink fast; return the last x and whether it got there."""
    change = math.inf
    for _ in range(MAX_ITERATIONS):
        x, before = update(x), x
        change, last = torch.dist(x, before, math.inf).item(), change
        # The changes shrink by about their ratio, which bounds what is left.
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
