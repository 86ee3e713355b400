"""Every kernel and every energy of the configuration that can be drawn from exactly, and the statistics compared."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from vaebench.energies.analytic.double_well import DoubleWellEnergy
from vaebench.energies.base import BaseEnergyFunction, ExactEnergy
from vaebench.factory.configurations import conf_dir, load, options
from vaebench.factory.recipes import recipe
from vaebench.mcmc.kernels.kernel import Kernel
from vaebench.mcmc.kernels.parallel_tempering import ParallelTemperingKernel, TemperedState
from vaebench.mcmc.state import Draw, Parameters, State

FOLDERS = [Path(conf_dir())]


def _built(group: str) -> dict:
    nodes = {name: load(f"{group}/{name}", FOLDERS) for name in options(FOLDERS)[group]}
    return {name: recipe(node, group).make() for name, node in nodes.items()}


KERNELS: dict[str, Kernel] = _built("kernel")
# as exact as with long trajectories, and sooner done
KERNELS["riemannian_hmc"] = replace(KERNELS["riemannian_hmc"], num_leapfrog=1, max_iterations=20)
EXACT_KERNELS = [name for name, kernel in KERNELS.items() if kernel.is_exact]
TARGETS: dict[str, ExactEnergy] = {
    name: energy.double() for name, energy in _built("target").items() if isinstance(energy, ExactEnergy)
}
BASIC = ["gaussian", "double_well", "rosenbrock"]  # on which everything is tried; on the others, invariance
LIKE = {"nuts": "hmc", "parallel_tempering": "hmc"}  # kernels that take another's step sizes
BIASED = {"langevin": ("mala", 1.0), "mclmc": ("ghmc", 3.0)}  # whose step size, times what, shows the bias
SLOW = {"nuts": 8, "parallel_tempering": 10, "riemannian_hmc": 100, "adjusted_mclmc": 4}  # fewer chains, by a factor
QUICK = {("riemannian_hmc", "gaussian"): 5}  # where the factor is smaller


class Derived(BaseEnergyFunction):
    """An energy made from another by a function of its value and gradient."""

    def __init__(self, energy: BaseEnergyFunction, change=lambda x, value, gradient: (value, gradient)) -> None:
        super().__init__()
        self.inner, self.change, self.num_dims = energy, change, energy.num_dims
        self.calls = self.rows = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.value_and_grad(x)[0]

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        self.rows += len(x)
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
    """The longest of a sequence at which a kernel accepts two thirds on a target; a biased one takes another's."""
    if kernel == "riemannian_hmc":  # whose search would take minutes
        return {"gaussian": 1.5, "double_well": 0.1, "rosenbrock": 0.15, "funnel": 0.3}[target]
    if kernel in LIKE:
        return step_size(LIKE[kernel], target)
    if kernel in BIASED:
        name, factor = BIASED[kernel]
        return factor * step_size(name, target)
    energy, adjusted = TARGETS[target], KERNELS[kernel]
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


def tempered(target: str, temperature: float, num_samples: int) -> Tensor:
    """Draw exactly from exp(-U / T)."""
    energy = TARGETS[target]
    if target == "gaussian":
        return energy.mean + math.sqrt(temperature) * (energy.exact_sample(num_samples) - energy.mean)
    if target == "double_well":
        return DoubleWellEnergy(barrier_height=2.0 / temperature).exact_sample(num_samples)
    if target == "rosenbrock":
        noise = math.sqrt(temperature / 2) * torch.randn(num_samples, 2, dtype=torch.float64)
        first = 1 + noise[:, 0]
        return torch.stack([first, first.square() + noise[:, 1] / 10], -1)
    assert target == "himmelblau"
    hot = copy.deepcopy(energy)
    hot.box = (-9.0, 9.0, -9.0, 9.0)
    hot.forward = lambda x: energy(x) / temperature  # type: ignore[method-assign]
    return hot.exact_sample(num_samples)


def fewer(kernel: str, target: str) -> int:
    """The factor by which fewer chains are run."""
    return QUICK.get((kernel, target), SLOW.get(kernel, 1))


def with_equilibrium(kernel: str) -> list[str]:
    """The targets on which a kernel's equilibrium is known, and reached in seconds."""
    return {"parallel_tempering": [*BASIC, "himmelblau"], "riemannian_hmc": [*BASIC, "funnel"]}.get(kernel, [*TARGETS])


def in_equilibrium(kernel: str, target: str, num_samples: int, temperature: float = 1.0, dtype=torch.float64) -> State:
    """The state of a kernel whose chains, and all that they carry along, are exact draws."""
    energy, move = TARGETS[target].to(dtype), KERNELS[kernel]
    cold = tempered(target, temperature, num_samples) if temperature != 1 else energy.exact_sample(num_samples)
    state = move.init(cold.to(dtype), energy)
    if isinstance(move, ParallelTemperingKernel):
        assert isinstance(state, TemperedState)
        ladder = [temperature * t for t in move.temperatures(state.energy).tolist()]
        hot = [tempered(target, t, num_samples).to(dtype) for t in ladder[1:]]
        replicas = move.inner.init(torch.stack([state.position, *hot], 1).flatten(0, 1), energy)
        return replace(state, replicas=replicas)
    return state


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


def changes(energy: BaseEnergyFunction, before: Tensor, after: Tensor) -> dict[str, Tensor]:
    """How far each statistic's mean has moved from exact draws to where the chains took them, in standard errors."""
    first, last = (statistics(x, energy.energy(x)) for x in (before, after))
    found = {}
    for name in first:
        change = last[name] - first[name]
        found[name] = change.mean(0) / (change.std(0) / math.sqrt(len(change))).clamp(min=1e-12)
    return found
