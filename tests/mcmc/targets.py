"""Every kernel and every energy of the configuration that can be drawn from exactly, and the statistics compared."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from vaebench.energies.base import BaseEnergyFunction, ExactEnergy
from vaebench.factory.configurations import conf_dir, load, options
from vaebench.factory.recipes import recipe
from vaebench.mcmc.kernels.kernel import Draw, Kernel, Parameters

FOLDERS = [Path(conf_dir())]


def _built(group: str) -> dict:
    nodes = {name: load(f"{group}/{name}", FOLDERS) for name in options(FOLDERS)[group]}
    return {name: recipe(node, group).make() for name, node in nodes.items()}


KERNELS: dict[str, Kernel] = _built("kernel")
EXACT_KERNELS = [name for name, kernel in KERNELS.items() if kernel.is_exact]
TARGETS: dict[str, ExactEnergy] = {
    name: energy.double() for name, energy in _built("target").items() if isinstance(energy, ExactEnergy)
}
BASIC = ["gaussian", "double_well", "rosenbrock"]  # on which everything is tried; on the others, invariance


class Derived(BaseEnergyFunction):
    """An energy made from another by a function of its value and gradient."""

    def __init__(self, energy: BaseEnergyFunction, change=lambda x, value, gradient: (value, gradient)) -> None:
        super().__init__()
        self.inner, self.change, self.num_dims = energy, change, energy.num_dims
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.value_and_grad(x)[0]

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return self.change(x, *self.inner.value_and_grad(x))


class Function(BaseEnergyFunction):
    """An energy from a plain function that returns the value and the gradient."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)[0]

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.function(x)


def parameters(step_size: float | Tensor, num_dims: int = 2, dtype=torch.float64, temperature=1.0) -> Parameters:
    inverse_mass = torch.linspace(0.5, 1.5, num_dims, dtype=dtype)
    return Parameters(torch.as_tensor(step_size, dtype=dtype), inverse_mass, temperature)


@cache
def step_size(kernel: str, target: str) -> float:
    """The longest of a sequence at which a kernel accepts two thirds on a target; unadjusted Langevin takes MALA's."""
    energy = TARGETS[target]
    adjusted = KERNELS[kernel] if KERNELS[kernel].is_metropolised else KERNELS["mala"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        start, size = adjusted.init(energy.exact_sample(1000), energy), 4.0
        while size > 1e-6:
            state, rates = start, []
            for _ in range(4):
                state, info = adjusted.step(state, energy, parameters(size, energy.num_dims), Draw())
                rates.append(float(info.acceptance_probability.mean()))
            if min(rates) > 0.67:
                return size
            size *= 0.75
    raise AssertionError(f"{kernel} accepts no step on {target}")


def correlated_gaussian() -> ExactEnergy:
    return copy.deepcopy(TARGETS["gaussian"])


def statistics(x: Tensor, energy: Tensor) -> dict[str, Tensor]:
    """Functions whose means are compared: (N, D), (N,) -> name: (N, k)."""
    return {
        "x": x,
        "x^2": x.square(),
        "x^4": x**4,
        "energy": energy[:, None],
        "x>0": (x > 0).double(),
        "cos 3x": torch.cos(3 * x),
        "product": x[:, :1] * x[:, 1:],
    }
