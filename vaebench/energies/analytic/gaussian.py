"""The Gaussian with a full covariance matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from vaebench.energies.base import ExactEnergy


class GaussianEnergy(ExactEnergy):
    r"""U(x) = (x - mu)' Sigma^-1 (x - mu) / 2.

    Args:
        mean: Shape (D,).
        covariance: Symmetric and positive definite, shape (D, D).
    """

    mean: Tensor
    scale: Tensor
    precision: Tensor

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        super().__init__()
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(
                f"expected a mean of shape (D,) and a covariance of shape (D, D), got {tuple(mean.shape)} and "
                f"{tuple(covariance.shape)}"
            )
        scale, info = torch.linalg.cholesky_ex(covariance)
        if int(info) != 0 or not torch.equal(covariance, covariance.T):
            raise ValueError("expected a symmetric positive definite covariance")
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.register_buffer("precision", torch.cholesky_inverse(scale))

    def energy(self, x: Tensor) -> Tensor:
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
