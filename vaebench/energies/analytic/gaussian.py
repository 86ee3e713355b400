"""The Gaussian with a full covariance matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vaebench.energies.base import ExactEnergy


class GaussianEnergy(ExactEnergy):
    r"""U(x) = (x - mu)' Sigma^-1 (x - mu) / 2.

    Args:
        mean: mu, shape (D,).
        covariance: Sigma, symmetric and positive definite, shape (D, D).

    Raises:
        ValueError: if the shapes do not match, or the covariance is none.
    """

    mean: Tensor
    scale: Tensor
    precision: Tensor

    def __init__(
        self,
        mean: Tensor | Sequence[float] = (0.0, 0.0),
        covariance: Tensor | Sequence[Sequence[float]] = ((1.0, 0.8), (0.8, 1.0)),
    ) -> None:
        super().__init__()
        mean = mean if isinstance(mean, Tensor) else torch.tensor(mean, dtype=torch.get_default_dtype())
        covariance = covariance if isinstance(covariance, Tensor) else _matrix(covariance).to(mean)
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(
                f"mean must have shape (D,) and covariance shape (D, D); got {tuple(mean.shape)} and "
                f"{tuple(covariance.shape)}"
            )
        scale, info = torch.linalg.cholesky_ex(covariance)
        if int(info) != 0 or not torch.equal(covariance, covariance.T):
            raise ValueError("covariance must be symmetric and positive definite")
        self.num_dims: int = len(mean)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.register_buffer("precision", torch.cholesky_inverse(scale))

    def forward(self, x: Tensor) -> Tensor:
        """U in nats, shape (B,)."""
        return self.value_and_grad(x)[0]

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U and Sigma^-1 (x - mu)."""
        centred = x - self.mean
        gradient = centred @ self.precision
        return 0.5 * (centred * gradient).sum(-1), gradient

    def exact_sample(self, num_samples: int) -> Tensor:
        """Draw mu + L e, shape (N, D)."""
        noise = torch.randn(num_samples, len(self.mean), dtype=self.mean.dtype, device=self.mean.device)
        return self.mean + noise @ self.scale.T

    def start(self, num_chains: int) -> Tensor:
        """Draw with twice the deviations, shape (S, D)."""
        return 2 * self.exact_sample(num_chains) - self.mean


def _matrix(rows: Sequence[Sequence[float]]) -> Tensor:
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"covariance must have rows of one length; got lengths {[len(row) for row in rows]}")
    return torch.tensor([list(row) for row in rows], dtype=torch.float64)
