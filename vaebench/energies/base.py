"""What an energy is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class BaseEnergyFunction(nn.Module, ABC):
    """An unnormalised density exp(-U(x)) on R^D.

    Row b of every result depends on row b of `x` only, so that chains are a batch dimension. A subclass with a gradient
    in closed form overrides `value_and_grad`, and `gradient` where the gradient alone costs less.
    """

    @abstractmethod
    def energy(self, x: Tensor) -> Tensor:
        """U = -log density, up to a constant, nats. (B, D) -> (B,)."""

    def forward(self, x: Tensor) -> Tensor:
        """The same as `energy`."""
        return self.energy(x)

    def log_density(self, x: Tensor) -> Tensor:
        """-U, nats, shape (B,)."""
        return -self.energy(x)

    def gradient(self, x: Tensor) -> Tensor:
        """Gradient of U, detached, shape (B, D)."""
        return self.value_and_grad(x)[1]

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U and its gradient, detached; here by automatic differentiation, also where gradients are switched off."""
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            energy = self.energy(x)
            (gradient,) = torch.autograd.grad(energy.sum(), x)
        return energy.detach(), gradient

    @abstractmethod
    def start(self, num_chains: int) -> Tensor:
        """Draw starting points that are spread at least as widely as the density, shape (S, D)."""


class ExactEnergy(BaseEnergyFunction):
    """An energy whose density can be drawn from exactly: the oracle for kernels."""

    @abstractmethod
    def exact_sample(self, num_samples: int) -> Tensor:
        """Draw independent samples, shape (N, D)."""

    def start(self, num_chains: int) -> Tensor:
        """Draw from the density itself."""
        return self.exact_sample(num_chains)
