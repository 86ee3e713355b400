"""The chain loop, once for every kernel: warm-up, thinning, storage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vaebench.mcmc.adaptation import WindowAdaptation, reasonable_step_size
from vaebench.mcmc.kernels.kernel import Kernel, Parameters, State

ProgressFunction = Callable[[int, int], None]
"""Called with the transitions done and their total."""


@dataclass(frozen=True)
class Chains:
    """What a run of S chains left, over T kept draws and, for the reports, every transition after warm-up.

    Attributes:
        positions: The kept draws, shape (T, S, D).
        acceptance_probability: Shape (T * thinning, S).
        is_divergent: Shape (T * thinning, S).
        total_energy: H, nats, shape (T * thinning, S).
        state: Where the chains ended: with `parameters` and the generator, all that is needed to go on.
        parameters: What the draws were made with.
        target_acceptance: What the kernel aims at.
        num_gradients: Gradient evaluations per chain, those of warm-up included.
    """

    positions: Tensor
    acceptance_probability: Tensor
    is_divergent: Tensor
    total_energy: Tensor
    state: State
    parameters: Parameters
    target_acceptance: float
    num_gradients: int


def run_chains(
    kernel: Kernel,
    start: Tensor,
    *,
    num_draws: int,
    num_warmup: int = 300,
    thinning: int = 1,
    step_size: float | None = None,
    target_acceptance: float | None = None,
    generator: torch.Generator | None = None,
    progress: ProgressFunction | None = None,
) -> Chains:
    """Run every row of `start` as one chain.

    Args:
        kernel: The transition.
        start: Starting points, shape (S, D); its dtype and device are the chains'.
        num_draws: Draws to keep of each chain, T.
        num_warmup: Transitions before the first draw. They are thrown away.
        thinning: Transitions per kept draw.
        step_size: Used as it is, with a unit mass matrix; None tunes both during warm-up and freezes them after it.
        target_acceptance: What to tune for; None is the kernel's own.
        generator: Source of all randomness; None is torch's global one. Must live on the chains' device.
        progress: Told after every transition.

    Raises:
        ValueError: if there is nothing to tune the step size with, or a start is not finite.
    """
    if step_size is None and num_warmup < 1:
        raise ValueError(f"expected num_warmup >= 1 where step_size is tuned, got {num_warmup}; set step_size")
    target = kernel.target_acceptance if target_acceptance is None else target_acceptance
    total = num_warmup + num_draws * thinning
    state = kernel.init(start)
    parameters = Parameters(start.new_tensor(0.1 if step_size is None else step_size), torch.ones_like(start[0]))
    adaptation = None
    if step_size is None:
        first = reasonable_step_size(kernel, state, parameters, generator)
        adaptation = WindowAdaptation(Parameters(first, parameters.inverse_mass_matrix), num_warmup, target)
        parameters = adaptation.parameters
    num_gradients = 1
    for t in range(num_warmup):
        num_gradients += kernel.num_gradients(state.iteration)
        state, info = kernel.step(state, parameters, generator)
        if adaptation is not None:
            adaptation.update(state, info)
            parameters = adaptation.parameters
        if progress is not None:
            progress(t + 1, total)

    num_chains, num_dims = start.shape
    positions = start.new_empty((num_draws, num_chains, num_dims))
    acceptance = start.new_empty((num_draws * thinning, num_chains))
    divergent = torch.empty_like(acceptance, dtype=torch.bool)
    energy = torch.empty_like(acceptance)
    for t in range(num_draws * thinning):
        num_gradients += kernel.num_gradients(state.iteration)
        state, info = kernel.step(state, parameters, generator)
        acceptance[t], divergent[t], energy[t] = info.acceptance_probability, info.is_divergent, info.total_energy
        if (t + 1) % thinning == 0:
            positions[t // thinning] = state.position
        if progress is not None:
            progress(num_warmup + t + 1, total)
    return Chains(positions, acceptance, divergent, energy, state, parameters, target, num_gradients)
