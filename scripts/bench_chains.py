"""Chains: steps per second of HMC, MALA and Langevin beside other libraries, and effective draws per gradient.

TorchEBM and BlackJAX are measured in the same run where they are installed. BlackJAX compiles whole runs with XLA; the
time of its compilation does not count, nor that of ours.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from bench_measure import Row, Settings, Spread, Stopwatch, interleaved, rows
from torch import Tensor

from vaebench.energies.analytic.double_well import DoubleWellEnergy
from vaebench.energies.analytic.gaussian import GaussianEnergy
from vaebench.energies.base import BaseEnergyFunction
from vaebench.energies.learned.mlp import MLPEnergy
from vaebench.factory.configurations import conf_dir, load, options
from vaebench.factory.recipes import recipe
from vaebench.mcmc.chains import run_chains
from vaebench.mcmc.diagnostics import diagnose
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.mcmc.kernels.kernel import Kernel
from vaebench.mcmc.kernels.langevin import LangevinKernel
from vaebench.mcmc.kernels.mala import MALAKernel

LEAPFROGS = 10
STEP_SIZES = {"hmc": 0.15, "mala": 0.01, "langevin": 0.01}
KERNELS: dict[str, Kernel] = {"hmc": HMCKernel(LEAPFROGS, jitter=0), "mala": MALAKernel(), "langevin": LangevinKernel()}
AIMS = {"double_well": "12 x TorchEBM", "mlp": "3 x TorchEBM"}
Job = Callable[[], object]


def speed(settings: Settings) -> list[Row]:
    """Transitions per second of all chains together."""
    cases: list[tuple[str, BaseEnergyFunction, int, int]] = [
        ("double_well", DoubleWellEnergy(2), settings.size(10_000, 100), 200),
        ("mlp", MLPEnergy(32), settings.size(1_000, 20), 20),
    ]
    result = []
    for target, energy, num_chains, length in cases:
        x = torch.randn(num_chains, energy.num_dims or 2)
        for name, kernel in KERNELS.items():
            count = settings.size(length if name == "hmc" else 5 * length, 2)
            size = STEP_SIZES[name] if target == "double_well" else STEP_SIZES[name] / 10
            jobs: dict[str, Job] = {
                "by hand": _by_hand(name, energy, x, size, count),
                "vaebench": lambda k=kernel, s=size, n=count, e=energy, x=x: run_chains(
                    k, e, x, num_draws=n, num_warmup=0, step_size=s, keep=False
                ),
            }
            if not settings.quick:  # it would compile longer than everything else takes
                jobs["vaebench, compiled"] = _compiled(kernel, energy, x, size, count)
            jobs |= _torchebm(name, energy, x, size, count) | _blackjax(name, energy, x, size, count)
            times = interleaved(jobs, settings.repeats)
            notes = {}
            for who in times.keys() & {"vaebench", "vaebench, compiled"} if "TorchEBM" in times else ():
                ratio = Spread.of([b / t for t, b in zip(times[who].cpu, times["TorchEBM"].cpu, strict=True)])
                notes[f"{who}, {name} on {target}"] = f"{ratio.median:.1f} x TorchEBM by CPU time (aim {AIMS[target]})"
            named = {f"{who}, {name} on {target}": value for who, value in times.items()}
            result += rows(
                "chains",
                named,
                against=f"by hand, {name} on {target}",
                unit="chain steps/s",
                value=lambda t, n=count * num_chains: n / t,
                notes=notes,
            )
    return result


def _compiled(kernel: Kernel, energy: BaseEnergyFunction, x: Tensor, size: float, count: int) -> Job:
    """Compiled transitions, without the first, which compiles them."""

    def job() -> Stopwatch:
        watch = Stopwatch()

        def begin(done: int, total: int) -> None:
            nonlocal watch
            if done == 1:
                watch = Stopwatch()

        run_chains(
            kernel,
            energy,
            x,
            num_draws=count + 1,
            num_warmup=0,
            step_size=size,
            keep=False,
            compile=True,
            progress=begin,
        )
        return watch.stop()

    return job


def _by_hand(name: str, energy: BaseEnergyFunction, x: Tensor, size: float, count: int) -> Job:
    """The same arithmetic as a tight loop, with nothing checked, counted or kept."""
    if isinstance(energy, DoubleWellEnergy):

        def value(x: Tensor) -> Tensor:
            return 2 * (x.square() - 1).square().sum(-1)

        def gradient(x: Tensor) -> Tensor:
            return 8 * x * (x.square() - 1)
    else:

        def value(x: Tensor) -> Tensor:
            return energy(x)

        def gradient(x: Tensor) -> Tensor:
            with torch.enable_grad():
                x = x.detach().requires_grad_(True)
                return torch.autograd.grad(energy(x).sum(), x)[0]

    @torch.no_grad()
    def langevin() -> None:
        z = x
        for _ in range(count):
            z = z - size * gradient(z) + math.sqrt(2 * size) * torch.randn_like(z)

    @torch.no_grad()
    def mala() -> None:
        z, u, g = x, value(x), gradient(x)
        for _ in range(count):
            noise = math.sqrt(2 * size) * torch.randn_like(z)
            y = z - size * g + noise
            v, h = value(y), gradient(y)
            log_ratio = u - v + (noise.square() - (z - y + size * h).square()).sum(-1) / (4 * size)
            accepted = torch.rand_like(u).log() < log_ratio
            rows_ = accepted[:, None]
            z, u, g = torch.where(rows_, y, z), torch.where(accepted, v, u), torch.where(rows_, h, g)

    @torch.no_grad()
    def hmc() -> None:
        z, u, g = x, value(x), gradient(x)
        for _ in range(count):
            p = torch.randn_like(z)
            start = u + 0.5 * p.square().sum(-1)
            y, q, h = z, p - 0.5 * size * g, g
            for step in range(LEAPFROGS):
                y = y + size * q
                h = gradient(y)
                q = q - (size if step < LEAPFROGS - 1 else 0.5 * size) * h
            v = value(y)
            accepted = torch.rand_like(u).log() < start - v - 0.5 * q.square().sum(-1)
            rows_ = accepted[:, None]
            z, u, g = torch.where(rows_, y, z), torch.where(accepted, v, u), torch.where(rows_, h, g)

    return {"langevin": langevin, "mala": mala, "hmc": hmc}[name]


def _torchebm(name: str, energy: BaseEnergyFunction, x: Tensor, size: float, count: int) -> dict[str, Job]:
    if importlib.util.find_spec("torchebm") is None or name == "mala":  # it has no MALA
        return {}
    from torchebm.core import BaseModel, DoubleWellModel
    from torchebm.samplers import HamiltonianMonteCarlo, LangevinDynamics

    class Wrapped(BaseModel):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = energy

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    model = DoubleWellModel(barrier_height=2.0) if isinstance(energy, DoubleWellEnergy) else Wrapped()
    sampler: Any = (
        LangevinDynamics(model=model, step_size=size)
        if name == "langevin"
        else HamiltonianMonteCarlo(model=model, step_size=size, n_leapfrog_steps=LEAPFROGS)
    )
    return {"TorchEBM": lambda: sampler.sample(x=x, n_steps=count)}


def _blackjax(name: str, energy: BaseEnergyFunction, x: Tensor, size: float, count: int) -> dict[str, Job]:
    if (
        importlib.util.find_spec("blackjax") is None or name == "langevin"
    ):  # its unadjusted one takes stochastic gradients
        return {}
    import blackjax
    import jax
    import jax.numpy as jnp

    if isinstance(energy, DoubleWellEnergy):

        def log_density(z: Any) -> Any:
            return -2 * jnp.sum((z**2 - 1) ** 2)
    else:
        assert isinstance(energy, MLPEnergy)
        first, first_bias, second, second_bias, last = (jnp.asarray(p.detach().numpy()) for p in energy.parameters())

        def log_density(z: Any) -> Any:
            h = jax.nn.silu(second @ jax.nn.silu(first @ z + first_bias) + second_bias)
            return -(last @ h)[0] - jnp.sum(z**2) / (2 * energy.reference_scale**2)

    kernel = (
        blackjax.mala(log_density, size)
        if name == "mala"
        else blackjax.hmc(log_density, size, jnp.ones(x.shape[1]), LEAPFROGS)
    )

    @jax.jit
    def run(key: Any, state: Any) -> Any:
        def one(state: Any, key: Any) -> Any:
            return jax.vmap(kernel.step)(jax.random.split(key, len(x)), state)[0], None

        return jax.lax.scan(one, state, jax.random.split(key, count))[0]

    start = jax.vmap(kernel.init)(jnp.asarray(x.numpy()))
    return {"BlackJAX": lambda: jax.block_until_ready(run(jax.random.key(0), start))}


class Counted(BaseEnergyFunction):
    """Counts the calls for a gradient, of however many chains: where chains wait for each other, all wait for each.

    Args:
        inner: The energy.
    """

    def __init__(self, inner: BaseEnergyFunction) -> None:
        super().__init__()
        self.inner, self.num_dims, self.calls = inner, inner.num_dims, 0

    def begin(self) -> None:
        """Count from here."""
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)

    def gradient(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.inner.gradient(x)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return self.inner.value_and_grad(x)


def efficiency(settings: Settings) -> list[Row]:
    """The least effective sample size over dimensions and squares, per 1000 gradients in lockstep and per second."""
    folders = [conf_dir()]
    deviations = torch.logspace(math.log10(0.3), math.log10(3), 50)
    targets = {
        "gaussian 50-D": GaussianEnergy(torch.zeros(50), torch.diag(deviations.square())),
        **{name: recipe(load(f"target/{name}", folders), "target").make() for name in ("eight_schools", "double_well")},
    }
    result = []
    for target, energy in targets.items():
        for name in ("hmc", "nuts", "chees_hmc", "ghmc", "adjusted_mclmc"):
            if name not in options(folders)["kernel"]:
                continue
            kernel = recipe(load(f"kernel/{name}", folders), "kernel").make()
            per_gradient, per_second = [], []
            for seed in range(1 if settings.quick else 3):
                torch.manual_seed(seed)
                num_draws = settings.size(2_000 if name == "ghmc" else 500, 20)
                start = energy.start(settings.size(128, 8)).float()
                num_warmup = settings.size(400, 20)
                counted = Counted(energy.float())
                watch = Stopwatch()
                chains = run_chains(
                    kernel,
                    counted,
                    start,
                    num_draws=num_draws,
                    num_warmup=num_warmup,
                    progress=lambda done, _, e=counted, n=num_warmup: e.begin() if done == n else None,
                )
                watch.stop()
                x = chains.positions.double()
                both = diagnose(_with(chains, torch.cat([x, x.square()], -1)))
                least = min(size or 0.0 for size in both.ess_bulk)
                per_gradient.append(1000 * least / len(start) / counted.calls)
                per_second.append(least / watch.cpu)
            label = f"{name}, {target}"
            result.append(
                Row("efficiency", label, Spread.of(per_gradient), "ESS of a chain per 1000 gradients in lockstep")
            )
            result.append(
                Row("efficiency", label, Spread.of(per_second), "ESS per second of CPU time, warm-up counted")
            )
    return result


def _with(chains: Any, positions: Tensor) -> Any:
    return replace(chains, positions=positions)
