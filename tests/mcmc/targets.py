"""Targets with exact draws, and the statistics that are compared."""

from __future__ import annotations

import torch

from vaebench.energies.analytic.double_well import DoubleWellEnergy
from vaebench.energies.analytic.gaussian import GaussianEnergy
from vaebench.energies.analytic.rosenbrock import RosenbrockEnergy
from vaebench.energies.base import ExactEnergy


def correlated_gaussian() -> GaussianEnergy:
    mean = torch.tensor([1.0, -2.0], dtype=torch.float64)
    return GaussianEnergy(mean, torch.tensor([[1.0, 0.8], [0.8, 2.0]], dtype=torch.float64))


TARGETS: dict[str, tuple[ExactEnergy, float]] = {  # with a step size that accepts 60 to 90 %
    "gaussian": (correlated_gaussian(), 0.7),
    "double_well": (DoubleWellEnergy(), 0.3),
    "rosenbrock": (RosenbrockEnergy(), 0.06),
}


def statistics(x: torch.Tensor, energy: torch.Tensor) -> dict[str, torch.Tensor]:
    """Functions whose means are compared: (N, D), (N,) -> name: (N, k)."""
    return {
        "x": x,
        "x^2": x.square(),
        "x^4": x**4,
        "energy": energy[:, None],
        "x>0": (x > 0).double(),
        "cos 3x": torch.cos(3 * x),
        "product": (x[:, :1] * x[:, 1:]),
    }
