r"""Hamiltonian dynamics on a Riemannian manifold, for flows that are trained through.

The Hamiltonian is

.. math:: H(z, \rho) = U(z) + \tfrac12 \log\det G(z) + \tfrac12 \rho^T G^{-1}(z) \rho

and the integrator the generalised leapfrog (Girolami and Calderhead, 2011, https://doi.org/10.1111/j.1467-9868.2010.00765.x,
section 6), whose two implicit equations are solved to a tolerance, so that a step is reversible and preserves volume.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vaebench.objectives.riemannian_metric import RiemannianMetric, log_det

MAX_ITERATIONS = 100


class Point(NamedTuple):
    """A point z of the manifold with what the integrator needs there.

    Attributes:
        z: Shape (B, D).
        grad_potential: Gradient of U at z, shape (B, D).
        weights: Weights of the centroids, shape (B, N).
        inverse: G^-1(z), shape (B, D, D).
        factor: Its Cholesky factor, shape (B, D, D).
        metric: G(z), shape (B, D, D).
    """

    z: Tensor
    grad_potential: Tensor
    weights: Tensor
    inverse: Tensor
    factor: Tensor
    metric: Tensor


def point(z: Tensor, grad_potential: Tensor, metric: RiemannianMetric) -> Point:
    """Evaluate the metric at z of shape (B, D)."""
    weights = metric.weights(z)
    inverse = metric.inverse_at(weights)
    factor, _ = torch.linalg.cholesky_ex(inverse)  # unchecked: a metric that is not finite shows in the loss
    return Point(z, grad_potential, weights, inverse, factor, torch.cholesky_inverse(factor))


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
    grad_potential: Callable[[Tensor], Tensor],
    tolerance: float | None = None,
) -> tuple[Point, Tensor]:
    """Take one step of size epsilon.

    Args:
        at: Where the step starts.
        rho: Momentum, shape (B, D).
        step_size: epsilon.
        metric: The metric.
        grad_potential: Gradient of U at (B, D).
        tolerance: Of the implicit equations, see `solve`.

    Returns:
        The new point and momentum.

    Raises:
        FloatingPointError: if an implicit equation has no solution in reach.
    """
    half = 0.5 * step_size
    kicked = rho - half * (at.grad_potential - 0.5 * metric.pull(at.z, at.weights, at.metric))
    middle = solve(
        lambda r: kicked - 0.5 * half * metric.pull(at.z, at.weights, outer(r)),
        rho,
        lambda r: -half * metric.pull_jacobian(at.z, at.weights, r),
        tolerance,
    )
    drift = half * apply(at.inverse, middle)
    drifted = at.z + drift
    z = solve(
        lambda end: drifted + half * apply(metric.inverse(end), middle),
        drifted + drift,
        lambda end: half * metric.pull_jacobian(end, metric.weights(end), middle).mT,
        tolerance,
    )
    end = point(z, grad_potential(z), metric)
    return end, middle - half * grad_hamiltonian(end, middle, metric)


def solve(
    update: Callable[[Tensor], Tensor],
    start: Tensor,
    jacobian: Callable[[Tensor], Tensor],
    tolerance: float | None = None,
) -> Tensor:
    """Return the fixed point x = update(x), iterated from `start` (B, D).

    Gradients come from the implicit function theorem: the iterations leave no trace, and the adjoint equation
    v = g + J^T v is iterated to the same tolerance.

    Args:
        update: A contraction.
        start: First guess.
        jacobian: J of the update at x, shape (B, D, D), with J_jk the derivative of entry j by entry k of x.
        tolerance: Largest change of an entry in the last iteration, relative to 1 + the largest magnitude of the first
            guess; by default epsilon^(3/4) of the dtype: 6e-6 in float32, 2e-12 in float64.

    Raises:
        FloatingPointError: if the tolerance is not reached in 100 iterations.
    """
    tolerance = torch.finfo(start.dtype).eps ** 0.75 if tolerance is None else tolerance
    with torch.no_grad():
        x = _iterate(update, start.detach(), tolerance)
    if not torch.is_grad_enabled():
        return x
    image = update(x)
    if not image.requires_grad:
        return image
    with torch.no_grad():
        transposed = jacobian(x).mT

    def adjoint(grad: Tensor) -> Tensor:
        return _iterate(lambda v: grad + apply(transposed, v), grad, tolerance)

    # The hook sits on a view, since a hook also fires where a gradient with respect to its own tensor is asked for.
    image.register_hook(adjoint)
    return image.view_as(image)


def _iterate(update: Callable[[Tensor], Tensor], start: Tensor, tolerance: float) -> Tensor:
    x = start
    bound = tolerance * (1 + start.abs().max().item())
    for _ in range(MAX_ITERATIONS):
        x, before = update(x), x
        change = torch.dist(x, before, math.inf).item()
        if change <= bound:
            return x
        if not math.isfinite(change):
            break
    if not (torch.isfinite(start).all() and torch.isfinite(update(start)).all()):
        return torch.full_like(start, math.nan)  # what came in was not finite; the loss shows it and names its term
    raise FloatingPointError(
        f"an implicit equation of the leapfrog integrator did not reach {tolerance:.1e} in {MAX_ITERATIONS} "
        f"iterations; lower model.step_size"
    )
