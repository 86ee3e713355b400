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

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vaebench.objectives.hamiltonian_steps import (
    DrawMomentum,
    Geometry,
    ImplicitDrift,
    ImplicitKick,
    Kick,
    LogDensity,
    geometry,
    grad_hamiltonian,
    outer,
    times,
)
from vaebench.objectives.implicit import Solution, solve, tolerance_or_default
from vaebench.objectives.riemannian_metric import RiemannianMetric

EASY_CONTRACTION = 0.2  # largest ratio of the error after one iteration to the error before

Potential = Callable[[Tensor], tuple[Tensor, Tensor]]
"""At z of shape (B, D): the gradient of U, shape (B, D), and B rows that the caller wants to keep."""


class Point(NamedTuple):
    """A point z of the manifold with what the integrator needs there.

    Attributes:
        z: Shape (B, D).
        grad_potential: Gradient of U at z, shape (B, D).
        value: What the potential computed on the way, B rows.
        geometry: The metric at z.
    """

    z: Tensor
    grad_potential: Tensor
    value: Tensor
    geometry: Geometry


def point(z: Tensor, potential: Potential, metric: RiemannianMetric) -> Point:
    """Evaluate potential and metric at z of shape (B, D)."""
    return Point(z, *potential(z), geometry(z, metric))


def draw_momentum(at: Point, noise: Tensor, metric: RiemannianMetric, beta: float = 1.0) -> tuple[Tensor, Tensor]:
    """Turn standard normal noise (B, D) into rho ~ N(0, G(z) / beta), shape (B, D), and its log density, nats, (B,)."""
    return DrawMomentum.apply(at.z, metric.centroids, metric.matrices, noise, beta, at.geometry, metric)


def momentum_log_prob(rho: Tensor, at: Point, metric: RiemannianMetric, beta: float = 1.0) -> Tensor:
    """log N(rho; 0, G(z) / beta), nats, shape (B,)."""
    return LogDensity.apply(at.z, metric.centroids, metric.matrices, rho, beta, at.geometry, metric)


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
    half, here, parameters = 0.5 * step_size, at.geometry, (metric.centroids, metric.matrices)
    middle = half_kick(at, rho, half, metric, tolerance)
    end = drift(here, middle.x, half, metric, tolerance)
    there = geometry(end.x, metric)
    p = ImplicitKick.apply(at.z, *parameters, at.grad_potential, rho, half, here, metric, middle.x, middle.mask)
    z = ImplicitDrift.apply(at.z, *parameters, p, half, here, there, metric, end.mask)
    arrived = Point(z, *potential(z), there)
    kicked = Kick.apply(z, *parameters, arrived.grad_potential, p, half, there, metric)
    if middle.is_easy and end.is_easy and _is_way_back_easy(at, middle.x, arrived, kicked, half, metric, tolerance):
        return arrived, kicked, torch.zeros_like(middle.is_solved)
    with torch.no_grad():
        back = half_kick(arrived, -kicked, half, metric, tolerance)
        home = drift(there, back.x, half, metric, tolerance)
        error = torch.maximum((home.x - at.z).abs().amax(-1), (back.x + middle.x).abs().amax(-1))
        scale = 1 + torch.maximum(at.z.abs().amax(-1), middle.x.abs().amax(-1))
        close = error <= 100 * tolerance_or_default(tolerance, rho) * scale
        taken = middle.is_solved & end.is_solved & back.is_solved & home.is_solved & close
    return _select(taken, arrived, at), torch.where(taken[:, None], kicked, -rho), ~taken


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
        slack = tolerance_or_default(tolerance, root) * (1 + guess.abs().amax(-1))
        return (image - root).abs().amax(-1) <= EASY_CONTRACTION * (guess - root).abs().amax(-1) + slack

    image = -kicked - half * grad_hamiltonian(arrived.grad_potential, kicked, arrived.geometry, metric)
    is_easy = contracts(-kicked, image, -middle)
    start = arrived.z - half * times(arrived.geometry.inverse, middle)
    guess = 2 * start - arrived.z
    is_easy &= contracts(guess, start - half * times(metric.inverse(guess), middle), at.z)
    return bool(is_easy.all())


def _select(mask: Tensor, yes: Point, no: Point) -> Point:
    """Rows of `yes` where the mask (B,) holds, of `no` elsewhere."""

    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(mask.view(-1, *[1] * (a.ndim - 1)), a, b)

    return Point(
        choose(yes.z, no.z),
        choose(yes.grad_potential, no.grad_potential),
        choose(yes.value, no.value),
        Geometry(*(choose(a, b) for a, b in zip(yes.geometry, no.geometry, strict=True))),
    )


@torch.no_grad()
def half_kick(at: Point, rho: Tensor, half: float, metric: RiemannianMetric, tolerance: float | None) -> Solution:
    """Solve rho' = rho - half * dH/dz(z, rho')."""
    z, weights = at.geometry.z, at.geometry.weights
    kicked = rho - half * (at.grad_potential - 0.5 * at.geometry.grad_log_det)
    return solve(
        lambda r: kicked - 0.5 * half * metric.pull(z, weights, outer(r, r)),
        rho,
        lambda r: -half * metric.pull_jacobian(z, weights, r),
        tolerance,
    )


@torch.no_grad()
def drift(here: Geometry, rho: Tensor, half: float, metric: RiemannianMetric, tolerance: float | None) -> Solution:
    """Solve z' = z + half * (G^-1(z) + G^-1(z')) rho."""
    step = half * times(here.inverse, rho)
    start = here.z + step
    return solve(
        lambda end: start + half * times(metric.inverse(end), rho),
        start + step,
        lambda end: half * metric.pull_jacobian(end, metric.weights(end), rho).mT,
        tolerance,
    )
