r"""Metrics that depend on the position: what Riemannian Hamiltonian Monte Carlo needs of one, at many points at once.

A metric G(x) is a function of a symmetric matrix A(x) that can be differentiated: the Hessian of the energy for
`SoftAbs`, the inverse metric itself for `Given`. Then every force is :math:`\nabla_x tr(S A(x))` with S held fixed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from vaebench.energies.base import BaseEnergyFunction


@runtime_checkable
class HasMetric(Protocol):
    """An energy with a metric of its own."""

    def inverse_metric(self, x: Tensor) -> Tensor:
        """G^-1, symmetric and positive definite, differentiable in x: (B, D) -> (B, D, D)."""
        ...


class PositionMetric(ABC):
    """A metric at n points. Where A is not finite, or no metric comes of it, everything is nan.

    Attributes:
        log_det: log det G, shape (n,).
    """

    log_det: Tensor

    @abstractmethod
    def velocity(self, momentum: Tensor) -> Tensor:
        """G^-1 p, shape (n, D)."""

    @abstractmethod
    def momentum(self, noise: Tensor) -> Tensor:
        """Turn draws from N(0, I) into draws from N(0, G), shape (n, D)."""

    @abstractmethod
    def sensitivity(self, momentum: Tensor, temperature: float | Tensor) -> Tensor:
        """Derivative of T log det(G) / 2 + p' G^-1 p / 2 in A, with p held fixed, shape (n, D, D)."""

    def kinetic_energy(self, momentum: Tensor, temperature: float | Tensor) -> Tensor:
        """T log det(G) / 2 + p' G^-1 p / 2, nats, shape (n,); T is a number, or of shape (n,)."""
        return 0.5 * (temperature * self.log_det + (momentum * self.velocity(momentum)).sum(-1))


class SoftAbs(PositionMetric):
    r"""The absolute value of a Hessian, softened where its eigenvalues pass through zero.

    .. math:: G = Q \, \mathrm{diag}(f(\lambda_i)) \, Q^\top, \quad f(\lambda) = \lambda \coth(\alpha \lambda) \ge
        1 / \alpha

    Its derivative along a change of the Hessian is :math:`Q (J \circ Q^\top dA \, Q) Q^\top` with :math:`J_{ij} =
    (f(\lambda_i) - f(\lambda_j)) / (\lambda_i - \lambda_j)`, which tends to a derivative of f where two are equal.

    References:
        A general metric for Riemannian manifold Hamiltonian Monte Carlo (Betancourt, 2013),
        https://arxiv.org/abs/1212.4693
    Args:
        hessian: A, shape (n, D, D).
        alpha: Inverse of the smallest eigenvalue of G, > 0.
    """

    def __init__(self, hessian: Tensor, alpha: float) -> None:
        is_bad = ~hessian.isfinite().all(-1).all(-1)
        safe = torch.where(is_bad[:, None, None], torch.eye(hessian.shape[-1]).to(hessian), hessian)
        values, self._vectors = torch.linalg.eigh(safe)
        self._values = values.masked_fill(is_bad[:, None], torch.nan)
        self._alpha = alpha
        self._softened = softened(self._values, alpha)
        self.log_det = self._softened.log().sum(-1)

    def velocity(self, momentum: Tensor) -> Tensor:
        """G^-1 p."""
        return self._along(momentum, self._softened.reciprocal())

    def momentum(self, noise: Tensor) -> Tensor:
        """G^(1/2) e."""
        return self._along(noise, self._softened.sqrt())

    def sensitivity(self, momentum: Tensor, temperature: float | Tensor) -> Tensor:
        """Q (T diag(f' / f) - J o v v') Q' / 2 with v = diag(1 / f) Q' p."""
        ratio = divided_difference(self._values, self._softened, self._alpha)
        v = _times(self._vectors.mT, momentum) / self._softened
        slope = ratio.diagonal(dim1=-2, dim2=-1) / self._softened
        heat = temperature.unsqueeze(-1) if isinstance(temperature, Tensor) else temperature
        inner = torch.diag_embed(heat * slope) - ratio * (v.unsqueeze(-1) * v.unsqueeze(-2))
        return 0.5 * self._vectors @ inner @ self._vectors.mT

    def _along(self, vector: Tensor, factors: Tensor) -> Tensor:
        return _times(self._vectors, factors * _times(self._vectors.mT, vector))


class Given(PositionMetric):
    """A metric by its inverse.

    Args:
        inverse: G^-1, shape (n, D, D).
    """

    def __init__(self, inverse: Tensor) -> None:
        self._inverse = inverse
        factor, info = torch.linalg.cholesky_ex(inverse)
        self._factor = factor.masked_fill((info != 0)[:, None, None], torch.nan)
        self.log_det = -2 * self._factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def velocity(self, momentum: Tensor) -> Tensor:
        """G^-1 p."""
        return _times(self._inverse, momentum)

    def momentum(self, noise: Tensor) -> Tensor:
        """L^-T e, with G^-1 = L L'."""
        return torch.linalg.solve_triangular(self._factor.mT, noise.unsqueeze(-1), upper=True).squeeze(-1)

    def sensitivity(self, momentum: Tensor, temperature: float | Tensor) -> Tensor:
        """(p p' - T G) / 2."""
        heat = temperature[:, None, None] if isinstance(temperature, Tensor) else temperature
        return 0.5 * (momentum.unsqueeze(-1) * momentum.unsqueeze(-2) - heat * torch.cholesky_inverse(self._factor))


def softened(values: Tensor, alpha: float) -> Tensor:
    """f = l coth(alpha l), shape kept."""
    y = alpha * values
    return torch.where(y.abs() < 1e-3, (1 + y.square() / 3) / alpha, values / torch.tanh(y))


def softened_slope(values: Tensor, alpha: float) -> Tensor:
    """f' = coth(y) - y / sinh(y)^2 with y = alpha l, shape kept."""
    y = alpha * values
    large = y.clamp(-40, 40)  # beyond, tanh is the sign
    return torch.where(y.abs() < 1e-3, 2 * y / 3, 1 / torch.tanh(large) - large / torch.sinh(large).square())


def divided_difference(values: Tensor, softened_values: Tensor, alpha: float) -> Tensor:
    """J_ij = (f(l_i) - f(l_j)) / (l_i - l_j), and f' in the middle where they are close: (n, D) -> (n, D, D)."""
    left, right = values.unsqueeze(-1), values.unsqueeze(-2)
    change = left - right
    size = torch.maximum(left.abs(), right.abs()).clamp(min=1 / alpha)
    is_close = change.abs() < torch.finfo(values.dtype).eps ** (1 / 3) * size
    ratio = (softened_values.unsqueeze(-1) - softened_values.unsqueeze(-2)) / change.masked_fill(is_close, 1.0)
    return torch.where(is_close, softened_slope((left + right) / 2, alpha), ratio)


def hessian(energy: BaseEnergyFunction, x: Tensor, *, keep: bool) -> Tensor:
    """Second derivatives of U by automatic differentiation.

    Args:
        energy: Whose `forward` can be differentiated twice.
        x: Shape (n, D), which requires a gradient.
        keep: Whether the result can be differentiated again.

    Returns:
        Shape (n, D, D).

    Raises:
        ValueError: if U cannot be differentiated.
    """
    value = energy.energy(x)
    if not value.requires_grad:
        raise ValueError(
            f"expected an energy whose forward can be differentiated twice, got {type(energy).__name__}, which returns "
            "values without a gradient; choose sampler=hmc"
        )
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    if not slope.requires_grad:  # U is linear here
        return x.new_zeros(*x.shape, x.shape[-1])
    # All rows at once is several times faster than a loop over them.
    units = torch.eye(x.shape[-1]).to(x).unsqueeze(1).expand(-1, *x.shape)
    (rows,) = torch.autograd.grad(slope, x, units, create_graph=keep, retain_graph=True, is_grads_batched=True)
    matrix = rows.movedim(0, -2)
    return 0.5 * (matrix + matrix.mT)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    """A matrix and a vector for each of n: (n, D, D), (n, D) -> (n, D)."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
