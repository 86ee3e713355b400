"""Dense and low-rank mass matrices, as linear maps: chains run in coordinates in which the target is round.

A kernel with mass matrix M = (A A')^-1 moves as one with M = I does in z = A^-1 x: so every kernel has them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vaebench.energies.base import BaseEnergyFunction

MassMatrix = Literal["diagonal", "dense", "low_rank"]
MAX_RANK, CUTOFF = 16, 2.0  # keeps directions with a variance above the cutoff or below its inverse


class Whitening(ABC):
    """An invertible linear map x = A z, on rows."""

    @abstractmethod
    def to_position(self, z: Tensor) -> Tensor:
        """A z, shape kept."""

    @abstractmethod
    def from_position(self, x: Tensor) -> Tensor:
        """A^-1 x, shape kept."""

    @abstractmethod
    def pull(self, gradient: Tensor) -> Tensor:
        """A' g: the gradient by z from that by x, shape kept."""

    @abstractmethod
    def push(self, gradient: Tensor) -> Tensor:
        """A'^-1 g: the gradient by x from that by z, shape kept."""


@dataclass(frozen=True)
class DenseWhitening(Whitening):
    """A is a Cholesky factor.

    Attributes:
        factor: L, lower triangular, shape (D, D).
    """

    factor: Tensor

    def to_position(self, z: Tensor) -> Tensor:
        """L z."""
        return z @ self.factor.T

    def from_position(self, x: Tensor) -> Tensor:
        """L^-1 x."""
        return torch.linalg.solve_triangular(self.factor.T, x, upper=True, left=False)

    def pull(self, gradient: Tensor) -> Tensor:
        """L' g."""
        return gradient @ self.factor

    def push(self, gradient: Tensor) -> Tensor:
        """L'^-1 g."""
        return torch.linalg.solve_triangular(self.factor, gradient, upper=False, left=False)


@dataclass(frozen=True)
class LowRankWhitening(Whitening):
    """A = S (I + V (R - I) V').

    Attributes:
        scale: Diagonal of S, shape (D,).
        directions: V, orthonormal columns, shape (D, k).
        root: Diagonal of R, shape (k,).
    """

    scale: Tensor
    directions: Tensor
    root: Tensor

    def to_position(self, z: Tensor) -> Tensor:
        """Stretch along V, then along the axes."""
        return self._stretched(z, self.root) * self.scale

    def from_position(self, x: Tensor) -> Tensor:
        """Undo it."""
        return self._stretched(x / self.scale, 1 / self.root)

    def pull(self, gradient: Tensor) -> Tensor:
        """The transpose."""
        return self._stretched(gradient * self.scale, self.root)

    def push(self, gradient: Tensor) -> Tensor:
        """The inverse of the transpose."""
        return self._stretched(gradient, 1 / self.root) / self.scale

    def _stretched(self, x: Tensor, factor: Tensor) -> Tensor:
        return x + (x @ self.directions * (factor - 1)) @ self.directions.T


class WhitenedEnergy(BaseEnergyFunction):
    """U(A z) as an energy of z.

    Args:
        energy: U.
        whitening: A.
    """

    def __init__(self, energy: BaseEnergyFunction, whitening: Whitening) -> None:
        super().__init__()
        self.inner, self.whitening, self.num_dims = energy, whitening, energy.num_dims

    def forward(self, x: Tensor) -> Tensor:
        """U in nats, shape (B,)."""
        return self.inner.energy(self.whitening.to_position(x))

    def gradient(self, x: Tensor) -> Tensor:
        """Its gradient by z."""
        return self.whitening.pull(self.inner.gradient(self.whitening.to_position(x)))

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U, and its gradient by z."""
        value, gradient = self.inner.value_and_grad(self.whitening.to_position(x))
        return value, self.whitening.pull(gradient)


def find_whitening(x: Tensor, kind: MassMatrix, like: Tensor) -> Whitening:
    r"""Estimate A from draws, so that A A' is about their covariance.

    Correlations are shrunk: with R those of n draws in D dimensions, (n R + D I) / (n + D) is used; and deviations as
    those of a diagonal mass matrix are. The low-rank map keeps the eigenvectors of these correlations whose eigenvalues
    are above 2 or below 1/2, at most 16.

    References:
        Stan Reference Manual, section HMC Algorithm Parameters, https://mc-stan.org/docs/reference-manual/mcmc.html
        Selecting the Metric in Hamiltonian Monte Carlo (Bales et al., 2019), https://arxiv.org/abs/1905.11916
    Args:
        x: Shape (N, D), float64.
        kind: "dense" or "low_rank".
        like: Gives the dtype of the map.
    """
    n, num_dims = x.shape
    centred = x - x.mean(0)
    scale = (centred.square().mean(0) * (n / (n + 5)) + 1e-3 * (5 / (n + 5))).sqrt()
    whitened = centred / scale
    correlation = (whitened.T @ whitened + num_dims * torch.eye(num_dims).to(x)) / (n + num_dims)
    if kind == "dense":
        return DenseWhitening((scale.unsqueeze(-1) * torch.linalg.cholesky(correlation)).to(like.dtype))
    values, vectors = torch.linalg.eigh(correlation)
    distance = values.log().abs()
    rows = distance.argsort(descending=True)[: min(MAX_RANK, int((distance > torch.tensor(CUTOFF).log()).sum()))]
    return LowRankWhitening(
        scale.to(like.dtype), vectors[:, rows].to(like.dtype).contiguous(), values[rows].sqrt().to(like.dtype)
    )
