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


def grad_hamiltonian(at: Point, rho: Tensor, metric: RiemannianMetric) -> Tensor:
    """Gradient of H in z at a fixed momentum, shape (B, D)."""
    outer = rho[..., :, None] * rho[..., None, :]
    return at.grad_potential + 0.5 * metric.pull(at.z, at.weights, outer - at.metric)


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
    middle = solve(lambda r: rho - half * grad_hamiltonian(at, r, metric), rho, tolerance)
    drift = half * apply(at.inverse, middle)
    z = solve(lambda end: at.z + drift + half * apply(metric.inverse(end), middle), at.z + 2 * drift, tolerance)
    end = point(z, grad_potential(z), metric)
    return end, middle - half * grad_hamiltonian(end, middle, metric)


def solve(update: Callable[[Tensor], Tensor], start: Tensor, tolerance: float | None = None) -> Tensor:
    """Return the fixed point x = update(x), iterated from `start` (B, D).

    Gradients come from the implicit function theorem: the iterations leave no trace, and the adjoint equation
    v = g + J^T v is solved by the same iteration to the same tolerance.

    Args:
        update: A contraction.
        start: First guess.
        tolerance: Largest change of an entry in the last iteration, relative to 1 + its magnitude; by default
            epsilon^(3/4) of the dtype: 6e-6 in float32, 2e-12 in float64.

    Raises:
        FloatingPointError: if the tolerance is not reached in 100 iterations.
    """
    tolerance = torch.finfo(start.dtype).eps ** 0.75 if tolerance is None else tolerance
    with torch.no_grad():
        x = _iterate(update, start.detach(), tolerance)
    if not torch.is_grad_enabled():
        return x
    x.requires_grad_()
    image = update(x)
    if not image.requires_grad:
        return image

    def adjoint(grad: Tensor) -> Tensor:
        def transposed(v: Tensor) -> Tensor:
            return grad + torch.autograd.grad(image, x, v, retain_graph=True)[0]

        return _iterate(transposed, grad, tolerance)

    # The hook sits on a view, so that it sees the gradient that arrives from outside and not its own products; the
    # caller gets another view, since a hook also fires where a gradient with respect to its tensor is asked for.
    hooked = image.view_as(image)
    hooked.register_hook(adjoint)
    return hooked.view_as(hooked)


def _iterate(update: Callable[[Tensor], Tensor], start: Tensor, tolerance: float) -> Tensor:
    x = start
    for _ in range(MAX_ITERATIONS):
        x, before = update(x), x
        change = ((x - before).abs() / (1 + x.abs())).max().item()
        if change <= tolerance:
            return x
        if not math.isfinite(change):
            break
    if not (torch.isfinite(start).all() and torch.isfinite(update(start)).all()):
        return torch.full_like(start, math.nan)  # what came in was not finite; the loss shows it and names its term
    raise FloatingPointError(
        f"an implicit equation of the leapfrog integrator did not reach {tolerance:.1e} in {MAX_ITERATIONS} "
        f"iterations; lower model.step_size"
    )
