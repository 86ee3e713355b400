"""The chain loop, once for every kernel: warm-up, schedules, thinning, storage."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vaebench.core import ProgressFunction
from vaebench.energies.base import BaseEnergyFunction
from vaebench.mcmc.adaptation import WindowAdaptation, reasonable_step_size
from vaebench.mcmc.kernels.kernel import Draw, Kernel, Parameters, State
from vaebench.messages import check_range
from vaebench.schedules import Schedule, as_schedule


@dataclass(frozen=True)
class Chains:
    """What a run of S chains left, over T kept draws and, for the reports, every transition after warm-up.

    Attributes:
        positions: The kept draws, shape (T, S, D).
        acceptance_probability: Shape (T * thinning, S).
        is_divergent: Shape (T * thinning, S).
        total_energy: H, nats, shape (T * thinning, S).
        state: Where the chains ended: with `parameters` and the generator, all that is needed to go on.
        parameters: What the last draw was made with.
        kernel: The transition.
        target_acceptance: What the kernel was tuned for, or what suits it; None where nothing can be tuned.
        num_gradients: Gradient evaluations of each chain, those of warm-up included, int64, shape (S,).
        statistics: The kernel's own, averaged over transitions after warm-up, float64, each of shape (S, ...).
    """

    positions: Tensor
    acceptance_probability: Tensor
    is_divergent: Tensor
    total_energy: Tensor
    state: State
    parameters: Parameters
    kernel: Kernel
    target_acceptance: float | None
    num_gradients: Tensor
    statistics: dict[str, Tensor] = field(default_factory=dict)


def run_chains(
    kernel: Kernel,
    energy: BaseEnergyFunction,
    start: Tensor,
    *,
    num_draws: int,
    num_warmup: int = 300,
    thinning: int = 1,
    step_size: float | Schedule | None = None,
    temperature: float | Schedule = 1.0,
    target_acceptance: float | None = None,
    keep: bool = True,
    generator: torch.Generator | None = None,
    progress: ProgressFunction | None = None,
) -> Chains:
    """Run every row of `start` as one chain.

    Args:
        kernel: The transition.
        energy: What to draw from.
        start: Starting points, shape (S, D); its dtype and device are the chains'.
        num_draws: Draws to keep of each chain, T.
        num_warmup: Transitions before the first draw. They are thrown away.
        thinning: Transitions per kept draw.
        step_size: Used as it is, with a unit mass matrix; a schedule is read before each transition, those of warm-up
            included. None tunes both during warm-up and freezes them after it.
        temperature: T of exp(-U / T), or its schedule.
        target_acceptance: What to tune for; None is the kernel's own.
        keep: Whether to store draws and reports; without, memory does not grow with the number of transitions.
        generator: Source of all randomness; None is torch's global one. Must live on the chains' device.
        progress: Told after every transition.

    Raises:
        ValueError: if there is nothing to tune the step size with or by, a schedule leaves its range, or a start is
            not finite.
    """
    draw = Draw(generator)
    target = kernel.target_acceptance if target_acceptance is None else target_acceptance
    state = kernel.init(start, energy)
    parameters = fixed_parameters(start, 0.1 if step_size is None else step_size, temperature)
    adaptation = None
    if step_size is None:
        if kernel.target_acceptance is None or target is None:
            raise ValueError(f"step_size must be given for kernel={kernel.name}: it has no acceptance rate to tune for")
        if num_warmup < 1:
            raise ValueError(f"num_warmup must be at least 1 where step_size is tuned; got {num_warmup}; set step_size")
        first = reasonable_step_size(kernel, state, energy, parameters(0), draw)
        adaptation = WindowAdaptation(replace(parameters(0), step_size=first), num_warmup, target)

    def settings(t: int) -> Parameters:
        if adaptation is None:
            return parameters(t)
        return replace(adaptation.parameters, temperature=parameters(t).temperature)

    total = num_warmup + num_draws * thinning
    num_gradients = torch.ones_like(state.energy, dtype=torch.int64)
    for t in range(num_warmup):
        state, info = kernel.step(state, energy, settings(t), draw)
        num_gradients += info.num_gradients
        if adaptation is not None:
            adaptation.update(state, info)
        if progress is not None:
            progress(t + 1, total)

    num_chains, num_dims = start.shape
    num_kept = num_draws if keep else 0
    positions = start.new_empty((num_kept, num_chains, num_dims))
    acceptance = start.new_empty((num_kept * thinning, num_chains))
    divergent = torch.empty_like(acceptance, dtype=torch.bool)
    total_energy = torch.empty_like(acceptance)
    statistics: dict[str, Tensor] = {}
    for t in range(num_draws * thinning):
        state, info = kernel.step(state, energy, settings(num_warmup + t), draw)
        num_gradients += info.num_gradients
        if keep:
            acceptance[t], divergent[t] = info.acceptance_probability, info.is_divergent
            total_energy[t] = info.total_energy
            for name, value in info.statistics.items():
                statistics[name] = statistics.get(name, 0.0) + value.double() / (num_draws * thinning)
            if (t + 1) % thinning == 0:
                positions[t // thinning] = state.position
        if progress is not None:
            progress(num_warmup + t + 1, total)
    return Chains(
        positions,
        acceptance,
        divergent,
        total_energy,
        state,
        settings(max(total - 1, 0)),
        kernel,
        target,
        num_gradients,
        statistics,
    )


def fixed_parameters(
    like: Tensor, step_size: float | Schedule, temperature: float | Schedule
) -> Callable[[int], Parameters]:
    """Return what gives the parameters of each transition where nothing is tuned: a unit mass matrix, and schedules.

    Args:
        like: Positions, shape (S, D).
        step_size: Above 0 at every transition.
        temperature: At least 0 at every transition.
    """
    ones = torch.ones_like(like[0])
    steps, temperatures = as_schedule(step_size), as_schedule(temperature)
    seen: dict[float, Tensor] = {}

    def parameters(t: int) -> Parameters:
        size, heat = steps(t), temperatures(t)
        if size not in seen:
            check_range("step_size" if t == 0 else f"step_size, at transition {t},", size, above=0, below=math.inf)
            seen.clear()
            seen[size] = like.new_tensor(size)
        check_range("temperature" if t == 0 else f"temperature, at transition {t},", heat, above=0, below=math.inf)
        return Parameters(seen[size], ones, heat)

    return parameters
