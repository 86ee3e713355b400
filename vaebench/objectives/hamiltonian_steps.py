# ruff: noqa: D102 - forward and backward are torch's; each class says what they compute
r"""The pieces of a Riemannian flow, with their gradients in closed form.

Every piece moves along a first derivative of 1/2 log det G(z) + 1/2 rho^T G^{-1}(z) rho, so its gradients are second
derivatives. All of them come down to `RiemannianMetric.adjoint`. What an implicit equation contributes follows from the
implicit function theorem: the iterations leave no trace.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from vaebench.objectives.implicit import iterate, tolerance_or_default
from vaebench.objectives.riemannian_metric import Along, RiemannianMetric, log_det


class Geometry(NamedTuple):
    """The metric at points z: numbers only, through which no gradient goes.

    Attributes:
        z: Shape (B, D).
        weights: Weights of the centroids, shape (B, N).
        inverse: G^-1(z), shape (B, D, D).
        factor: Its Cholesky factor, shape (B, D, D).
        matrix: G(z), shape (B, D, D).
        grad_log_det: Gradient of log det G^-1(z), shape (B, D).
    """

    z: Tensor
    weights: Tensor
    inverse: Tensor
    factor: Tensor
    matrix: Tensor
    grad_log_det: Tensor


@torch.no_grad()
def geometry(z: Tensor, metric: RiemannianMetric) -> Geometry:
    """Evaluate the metric at z of shape (B, D)."""
    weights = metric.weights(z)
    inverse = metric.inverse_at(weights)
    factor, _ = torch.linalg.cholesky_ex(inverse)  # unchecked: the loss shows a metric that is not finite
    matrix = torch.cholesky_inverse(factor)
    return Geometry(z.detach(), weights, inverse, factor, matrix, metric.pull(z, weights, matrix))


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """Product of (B, D, D) and (B, D)."""
    return (matrix @ vector[..., None])[..., 0]


def outer(vector: Tensor, other: Tensor) -> Tensor:
    """v w^T for two of (B, D); shape (B, D, D)."""
    return vector[..., :, None] * other[..., None, :]


def grad_hamiltonian(grad_potential: Tensor, rho: Tensor, here: Geometry, metric: RiemannianMetric) -> Tensor:
    """Gradient of H in z at a fixed momentum, shape (B, D)."""
    return grad_potential + 0.5 * (metric.pull(here.z, here.weights, outer(rho, rho)) - here.grad_log_det)


Backward = Callable[..., tuple[Any, ...]]


def _differentiable_once(backward: Backward) -> Backward:
    """Let a backward pass fail where a graph of it is asked for; it is the end of what is differentiated.

    torch's `once_differentiable` lets the graph pass where the incoming gradient is a constant, and what is then
    differentiated again lacks terms.
    """

    @functools.wraps(backward)
    def checked(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("gradients through a Riemannian flow cannot be differentiated again (create_graph=True)")
        return backward(ctx, *grads)

    return checked


class DrawMomentum(Function):
    """rho = L^-T noise / sqrt(beta), shape (B, D), with G^-1 = L L^T, so that its covariance is G / beta; and
    log N(rho; 0, G / beta), shape (B,).
    """

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        centroids: Tensor,
        matrices: Tensor,
        noise: Tensor,
        beta: float,
        here: Geometry,
        metric: RiemannianMetric,
    ) -> tuple[Tensor, Tensor]:
        rho = torch.linalg.solve_triangular(here.factor.mT, noise[..., None], upper=True)[..., 0] / math.sqrt(beta)
        ctx.save_for_backward(rho)
        ctx.here, ctx.metric = here, metric
        return rho, 0.5 * (_log_normaliser(here, beta) - noise.square().sum(-1))

    @staticmethod
    @_differentiable_once
    def backward(ctx: Any, grad: Tensor, grad_log_prob: Tensor) -> tuple[Any, ...]:
        (rho,), factor = ctx.saved_tensors, ctx.here.factor
        # The gradient in L is -tril(rho (L^-1 grad)^T); the rest reverses a Cholesky factorisation (Murray,
        # 2016, https://arxiv.org/abs/1602.07527, eq. 9).
        solved = torch.linalg.solve_triangular(factor, grad[..., None], upper=False)[..., 0]
        lower = (factor.mT @ outer(rho, solved).tril()).tril()
        lower.diagonal(dim1=-2, dim2=-1).mul_(0.5)
        lower = torch.linalg.solve_triangular(factor, lower, upper=False, left=False)
        lower = torch.linalg.solve_triangular(factor.mT, lower, upper=True)
        inner = 0.5 * (grad_log_prob[:, None, None] * ctx.here.matrix - lower - lower.mT)
        return *ctx.metric.adjoint(ctx.here.z, ctx.here.weights, inner), None, None, None, None


class LogDensity(Function):
    """log N(rho; 0, G(z) / beta), nats, shape (B,), every constant kept."""

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        centroids: Tensor,
        matrices: Tensor,
        rho: Tensor,
        beta: float,
        here: Geometry,
        metric: RiemannianMetric,
    ) -> Tensor:
        velocity = times(here.inverse, rho)
        ctx.save_for_backward(rho, velocity)
        ctx.beta, ctx.here, ctx.metric = beta, here, metric
        return 0.5 * (_log_normaliser(here, beta) - beta * (rho * velocity).sum(-1))

    @staticmethod
    @_differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        rho, velocity = ctx.saved_tensors
        inner = (0.5 * grad)[:, None, None] * (ctx.here.matrix - ctx.beta * outer(rho, rho))
        slopes = ctx.metric.adjoint(ctx.here.z, ctx.here.weights, inner)
        return *slopes, (-ctx.beta * grad)[:, None] * velocity, None, None, None


class Kick(Function):
    """rho' = rho - half * dH/dz(z, rho), shape (B, D)."""

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        centroids: Tensor,
        matrices: Tensor,
        grad_potential: Tensor,
        rho: Tensor,
        half: float,
        here: Geometry,
        metric: RiemannianMetric,
    ) -> Tensor:
        ctx.save_for_backward(rho)
        ctx.half, ctx.here, ctx.metric = half, here, metric
        return rho - half * grad_hamiltonian(grad_potential, rho, here, metric)

    @staticmethod
    @_differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        (rho,) = ctx.saved_tensors
        direction = -ctx.half * grad
        slopes, change = _kick_slopes(rho, direction, ctx.here, ctx.metric)
        return *slopes, direction, grad + times(change, rho), None, None, None


class ImplicitKick(Function):
    """The rho' (B, D) that solves rho' = rho - half * dH/dz(z, rho').

    Where rows were left unsolved, `is_solved` (B,) says so, and their gradients mean nothing.
    """

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        centroids: Tensor,
        matrices: Tensor,
        grad_potential: Tensor,
        rho: Tensor,
        half: float,
        here: Geometry,
        metric: RiemannianMetric,
        solution: Tensor,
        is_solved: Tensor | None,
    ) -> Tensor:
        kicked = solution.detach()
        ctx.save_for_backward(kicked)
        ctx.half, ctx.here, ctx.metric, ctx.is_solved = half, here, metric, is_solved
        return kicked

    @staticmethod
    @_differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        (rho,), half, here, metric = ctx.saved_tensors, ctx.half, ctx.here, ctx.metric
        grad = _solve_adjoint(
            grad,
            lambda v: times(metric.change(here.weights, metric.slopes(here.z, -half * v)), rho),
            lambda: -half * metric.pull_jacobian(here.z, here.weights, rho),
            ctx.is_solved,
        )
        direction = -half * grad
        slopes, _ = _kick_slopes(rho, direction, here, metric)
        return *slopes, direction, grad, None, None, None, None, None


class ImplicitDrift(Function):
    """The z' (B, D) that solves z' = z + half * (G^-1(z) + G^-1(z')) rho; `is_solved` as in `ImplicitKick`."""

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        centroids: Tensor,
        matrices: Tensor,
        rho: Tensor,
        half: float,
        here: Geometry,
        there: Geometry,
        metric: RiemannianMetric,
        is_solved: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(rho)
        ctx.half, ctx.here, ctx.there, ctx.metric, ctx.is_solved = half, here, there, metric, is_solved
        return there.z.detach()

    @staticmethod
    @_differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        (rho,), half, here, there, metric = ctx.saved_tensors, ctx.half, ctx.here, ctx.there, ctx.metric
        grad = _solve_adjoint(
            grad,
            lambda v: metric.pull(there.z, there.weights, _symmetric(outer(half * v, rho))),
            lambda: half * metric.pull_jacobian(there.z, there.weights, rho).mT,
            ctx.is_solved,
        )
        inner = _symmetric(outer(half * grad, rho))
        both = torch.cat([here.z, there.z]), torch.cat([here.weights, there.weights])
        in_z, in_centroids, in_matrices = metric.adjoint(*both, torch.cat([inner, inner]))
        in_rho = times(here.inverse + there.inverse, half * grad)
        return grad + in_z[: len(grad)], in_centroids, in_matrices, in_rho, None, None, None, None, None


def _log_normaliser(here: Geometry, beta: float) -> Tensor:
    """log det of the momentum's precision over 2 pi, shape (B,)."""
    return log_det(here.factor) + here.z.shape[-1] * math.log(beta / (2 * math.pi))


def _kick_slopes(
    rho: Tensor, direction: Tensor, here: Geometry, metric: RiemannianMetric
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Gradients of <direction, dH/dz(z, rho)> in z, centroids and matrices, and the change of G^-1 along direction."""
    slopes = metric.slopes(here.z, direction)
    change = metric.change(here.weights, slopes)
    along = Along(0.5 * (outer(rho, rho) - here.matrix), direction, slopes)
    return metric.adjoint(here.z, here.weights, 0.5 * (here.matrix @ change @ here.matrix), along), change


def _symmetric(matrix: Tensor) -> Tensor:
    return 0.5 * (matrix + matrix.mT)


def _solve_adjoint(
    grad: Tensor,
    transposed: Callable[[Tensor], Tensor],
    jacobian: Callable[[], Tensor],
    is_solved: Tensor | None,
) -> Tensor:
    """Solve v = grad + J^T v, where J was easily a contraction by iterating, else directly.

    The tolerance is relative to the largest gradient of the batch, to which the others will be added.

    Args:
        grad: Shape (B, D).
        transposed: v -> J^T v.
        jacobian: Gives J, shape (B, D, D).
        is_solved: Which rows have a root, (B,); None where all were easy.
    """
    if is_solved is None:
        bound = tolerance_or_default(None, grad) * grad.abs().max().item()
        v, is_easy = iterate(lambda v: grad + transposed(v), grad, bound)
        if is_easy:
            return v
        is_solved = torch.ones(len(grad), dtype=torch.bool, device=grad.device)
    eye = torch.eye(grad.shape[-1], dtype=grad.dtype, device=grad.device)
    # Without a root, I - J may be singular.
    matrix = torch.where(is_solved[:, None, None], eye - jacobian().mT, eye)
    return torch.linalg.solve_ex(matrix, grad)[0]
