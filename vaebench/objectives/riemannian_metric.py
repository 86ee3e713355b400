r"""The Riemannian metric of a latent space that is learned from centroids.

.. math:: G^{-1}(z) = \sum_i M_i \exp(-\|c_i - z\|^2 / T^2) + \lambda I, \quad M_i = L_i L_i^T

(Chadebec, Mantoux and Allassonniere, 2020, https://arxiv.org/abs/2010.11518).

Every M_i is symmetric, so it is held as its D (D + 1) / 2 lower entries. G^{-1} is then one product of (B, N) weights
with (N, D (D + 1) / 2) entries, every gradient is in closed form, and nothing of size B x N x D x D exists. Where a
contraction sums over both triangles, the entries below the diagonal count twice.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Along(NamedTuple):
    """Parts of a derivative along a direction that `RiemannianMetric.adjoint` needs.

    Attributes:
        matrix: S, symmetric, shape (B, D, D).
        direction: Shape (B, D).
        slopes: Those of the direction, shape (B, N).
    """

    matrix: Tensor
    direction: Tensor
    slopes: Tensor


class RiemannianMetric:
    """The metric for given centroids; differentiable in everything that it is given.

    Args:
        centroids: c_i, shape (N, D); N may be 0, which leaves G^-1 = lambda I.
        matrices: M_i, symmetric, as packed lower triangles (N, D (D + 1) / 2); see `pack`.
        temperature: T, width of each centroid's influence, > 0, in latent units.
        regularization: lambda, the value of G^-1 far from every centroid, > 0.
    """

    def __init__(self, centroids: Tensor, matrices: Tensor, temperature: float, regularization: float) -> None:
        self.centroids = centroids
        self.matrices = matrices
        self.temperature = temperature
        self.regularization = regularization
        self.dim = dim = centroids.shape[-1]
        rows, columns = torch.tril_indices(dim, dim, device=centroids.device).unbind()
        self._lower = rows * dim + columns  # packed entry -> place in the flattened matrix
        full = torch.empty(dim, dim, dtype=torch.long, device=centroids.device)
        full[rows, columns] = full[columns, rows] = torch.arange(len(rows), device=centroids.device)
        self._unpack = full.flatten()  # and the reverse
        self._eye = (rows == columns).to(centroids.dtype) * regularization
        self._counts = 2.0 - (rows == columns).to(centroids.dtype)
        self._counted = (matrices * self._counts).mT.contiguous()
        self._scale = 2 / temperature**2
        scaled = centroids * self._scale
        # Transposed, because a product whose result has few columns is several times slower.
        self._exponent = scaled.mT.contiguous()
        self._scaled = torch.cat([self._exponent, torch.full_like(self._exponent[:1], self._scale)])
        self._offset = centroids.square().sum(-1) * (-0.5 * self._scale)

    def weights(self, z: Tensor) -> Tensor:
        """exp(-||c_i - z||^2 / T^2) for z of shape (B, D); shape (B, N)."""
        exponent = torch.addmm(self._offset, z, self._exponent)
        return exponent.sub(z.square().sum(-1, keepdim=True), alpha=0.5 * self._scale).exp()

    def inverse(self, z: Tensor) -> Tensor:
        """G^-1(z) for z of shape (B, D); shape (B, D, D)."""
        return self.inverse_at(self.weights(z))

    def inverse_at(self, weights: Tensor) -> Tensor:
        """G^-1 where the centroids have these weights (B, N); shape (B, D, D)."""
        packed = torch.addmm(self._eye, weights, self.matrices)
        return packed.index_select(-1, self._unpack).unflatten(-1, (self.dim, self.dim))

    def log_det_inverse(self, z: Tensor) -> Tensor:
        """log det G^-1(z), shape (B,)."""
        return log_det(torch.linalg.cholesky(self.inverse(z)))

    def pull(self, z: Tensor, weights: Tensor, matrix: Tensor) -> Tensor:
        r"""Gradient in z of tr(S G^-1(z)) for a symmetric S (B, D, D) held fixed; shape (B, D).

        With S = G it is the gradient of log det G^-1, with S = rho rho^T that of rho^T G^-1 rho.

        .. math:: \nabla_z tr(S G^{-1}) = \frac{2}{T^2} \sum_i w_i \, tr(S M_i) \, (c_i - z)
        """
        packed = self._packed(matrix)
        return self._towards_centroids(z, weights * (packed @ self._counted))

    def pull_jacobian(self, z: Tensor, weights: Tensor, vector: Tensor) -> Tensor:
        r"""Return K with K_jk = sum_i w_i (2 / T^2) (c_i - z)_j (M_i v)_k for v of shape (B, D); shape (B, D, D).

        2 K is the Jacobian of `pull(z, w, v v^T)` in v, and K^T that of G^-1(z) v in z. This is of size B x N x D, and
        for the flows of training, whose centroids are a batch.
        """
        full = self.matrices.index_select(-1, self._unpack).view(-1, self.dim)
        images_NDB = (full @ vector.mT).unflatten(0, (-1, self.dim)) * weights.mT.contiguous().unsqueeze(1)
        moved = (self._scaled @ images_NDB.flatten(1)).unflatten(-1, (self.dim, -1))
        pulled, total = moved.split((self.dim, 1))
        return torch.addcmul(pulled, z.mT.unsqueeze(1), total, value=-1).permute(2, 0, 1)

    def slopes(self, z: Tensor, direction: Tensor) -> Tensor:
        """Derivatives of the log-weights along `direction` (B, D) at z (B, D); shape (B, N)."""
        along = (z * direction).sum(-1, keepdim=True)
        return (direction @ self._exponent).sub(along, alpha=self._scale)

    def change(self, weights: Tensor, slopes: Tensor) -> Tensor:
        """Derivative of G^-1 along the direction that has these slopes (B, N); shape (B, D, D)."""
        packed = (weights * slopes) @ self.matrices
        return packed.index_select(-1, self._unpack).unflatten(-1, (self.dim, self.dim))

    def adjoint(
        self, z: Tensor, weights: Tensor, inner: Tensor, along: Along | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        r"""Gradients of tr(X G^-1(z)) + tr(S dG^-1(z)), where d is the derivative along a direction.

        Args:
            z: Shape (B, D).
            weights: Those of the centroids at z, shape (B, N).
            inner: X, symmetric, shape (B, D, D); held fixed.
            along: S and the direction, held fixed; None leaves the second term out.

        Returns:
            Gradients in z, each row's own, in the centroids and in the packed matrices, summed over rows.
        """
        packed = self._packed(inner)
        in_log_weights = weights * (packed @ self._counted)
        in_matrices = weights.mT @ packed
        if along is not None:
            packed = self._packed(along.matrix)
            in_slopes = weights * (packed @ self._counted)
            in_log_weights = torch.addcmul(in_log_weights, in_slopes, along.slopes)
            in_matrices.addmm_((weights * along.slopes).mT, packed)
        in_z = self._towards_centroids(z, in_log_weights)
        in_centroids = (z.mT @ in_log_weights).mT - self.centroids * in_log_weights.sum(0)[:, None]
        if along is not None:
            in_z.addcmul_(along.direction, in_slopes.sum(-1, keepdim=True), value=-self._scale)
            in_centroids.add_((along.direction.mT @ in_slopes).mT)
        return in_z, in_centroids * self._scale, in_matrices * self._counts

    def _towards_centroids(self, z: Tensor, shares: Tensor) -> Tensor:
        """Sum over i of shares (B, N) times (2 / T^2) (c_i - z), the gradient of a log-weight in z; shape (B, D)."""
        pulled, total = torch.mm(self._scaled, shares.mT).mT.split((self.dim, 1), -1)
        return torch.addcmul(pulled, z, total, value=-1)

    def _packed(self, matrix: Tensor) -> Tensor:
        return matrix.flatten(-2).index_select(-1, self._lower)


def log_det(factor: Tensor) -> Tensor:
    """log det A from its Cholesky factor (..., D, D); shape (...)."""
    return 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def pack(matrices: Tensor) -> Tensor:
    """Lower entries of symmetric matrices (..., D, D), row by row; shape (..., D (D + 1) / 2)."""
    dim = matrices.shape[-1]
    rows, columns = torch.tril_indices(dim, dim, device=matrices.device).unbind()
    return matrices.flatten(-2).index_select(-1, rows * dim + columns)
