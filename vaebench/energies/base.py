"""The base of the energies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from vaebench.core import Split
from vaebench.energies.target import Target
from vaebench.messages import check_range


class Reference(NamedTuple):
    """Published moments of a density that cannot be drawn from exactly, each of shape (D,).

    Attributes:
        mean: Means.
        standard_deviation: Standard deviations.
        mean_error: Monte Carlo standard errors of the means.
    """

    mean: Tensor
    standard_deviation: Tensor
    mean_error: Tensor


class BaseEnergyFunction(nn.Module, Target, ABC):
    """An unnormalised density exp(-U(x)) on R^D.

    A subclass defines `forward`. Row b of every result depends on row b of `x` only, so that chains are a batch
    dimension. A subclass with a gradient in closed form overrides `value_and_grad`, and `gradient` where the gradient
    alone costs less. An energy is its own target: it needs no model.

    Attributes:
        num_dims: D; None where any dimension will do.
        reference: Published moments, or None.
    """

    needs_model: ClassVar[bool] = False
    num_dims: int | None = None
    reference: Reference | None = None

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """U = -log density, up to a constant, nats. (B, D) -> (B,)."""

    def energy(self, x: Tensor) -> Tensor:
        """The same as `forward`: U in nats, shape (B,)."""
        return self.forward(x)

    def log_density(self, x: Tensor) -> Tensor:
        """-U, nats, shape (B,)."""
        return -self.energy(x)

    def gradient(self, x: Tensor) -> Tensor:
        """Gradient of U, detached, shape (B, D)."""
        return self.value_and_grad(x)[1]

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U, shape (B,), and its gradient, shape (B, D), detached.

        Here by automatic differentiation, also where gradients are switched off.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            energy = self.energy(x)
            (gradient,) = torch.autograd.grad(energy.sum(), x)
        return energy.detach(), gradient

    def start(self, num_chains: int) -> Tensor:
        """Draw starting points that are spread at least as widely as the density, shape (S, D); here U(-2, 2).

        Raises:
            ValueError: if the energy does not say its dimension.
        """
        if self.num_dims is None:
            raise ValueError(
                f"{type(self).__name__} does not say how many dimensions it has; set its attribute num_dims, or give "
                "starting points: sample(x=...)"
            )
        check_range("num_chains", num_chains, at_least=1, whole=True)
        return 4 * torch.rand(num_chains, self.num_dims) - 2

    def build(self, model: Any = None, split: Split | None = None) -> BaseEnergyFunction:
        """Return the energy itself."""
        return self


class ExactEnergy(BaseEnergyFunction):
    """An energy whose density can be drawn from exactly: the oracle for kernels."""

    @abstractmethod
    def exact_sample(self, num_samples: int) -> Tensor:
        """Draw independent samples, shape (N, D)."""
