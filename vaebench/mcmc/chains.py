"""The chain loop, once for every kernel: warm-up, schedules, thinning, storage."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vaebench.core import ProgressFunction
from vaebench.energies.base import BaseEnergyFunction
from vaebench.hardware.signals import Interrupted, SignalFlag
from vaebench.mcmc.adaptation import Adaptation, WarmUp
from vaebench.mcmc.compiled import CompiledStep
from vaebench.mcmc.kernels.kernel import Kernel
from vaebench.mcmc.state import Draw, Info, Parameters, State, dimensions_first
from vaebench.mcmc.unfinished import Store, Unfinished
from vaebench.mcmc.whitening import MassMatrix, WhitenedEnergy, Whitening
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
    mass_matrix: MassMatrix = "diagonal",
    keep: bool = True,
    compile: bool = False,
    generator: torch.Generator | None = None,
    progress: ProgressFunction | None = None,
    unfinished: Unfinished | None = None,
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
        mass_matrix: What a warm-up learns beside the step size: "diagonal", "dense" or "low_rank".
        keep: Whether to store draws and reports; without, memory does not grow with the number of transitions.
        compile: Whether the transitions after warm-up are compiled, where the kernel can be. The draws are the same
            within rounding; see `CompiledStep`.
        generator: Source of all randomness; None is torch's global one. Must live on the chains' device.
        progress: Called after every transition.
        unfinished: Where to keep what is done, now and then and when a signal ends the run, and what to go on from if
            it is there. A run that ends in its warm-up begins again; both end with the numbers of one that never
            stopped.

    Raises:
        Interrupted: a signal came, and what was done is kept.
        ValueError: if there is nothing to tune the step size with or by, a schedule leaves its range, or a start is
            not finite; or if the kernel cannot be compiled.
    """
    step: Callable[..., tuple[State, Info]] = CompiledStep(kernel) if compile else type(kernel).step
    draw = Draw(generator)
    target = kernel.target_acceptance if target_acceptance is None else target_acceptance
    total = num_warmup + num_draws * thinning
    parameters = fixed_parameters(start, 0.1 if step_size is None else step_size, temperature)
    refuse_schedules(kernel, parameters, (step_size, temperature), total)
    if step_size is None and not kernel.can_be_tuned:
        raise ValueError(f"step_size must be given for kernel={kernel.name}: it has no acceptance rate to tune for")
    if step_size is None and num_warmup < 1:
        raise ValueError(f"num_warmup must be at least 1 where step_size is tuned; got {num_warmup}; set step_size")

    store = Store.empty(start, num_draws if keep else 0, thinning)
    with SignalFlag() if unfinished is not None else contextlib.nullcontext() as signals:
        tuned = None if unfinished is None else unfinished.load(store, kernel, start, generator)
        if tuned is None:
            if signals is not None:
                signals.raises = True  # nothing of a warm-up is kept
            state = kernel.at(0).init(dimensions_first(start), energy)
            store.num_gradients += 1
            adaptation: Adaptation | None = None
            if step_size is None:
                warm_up = WarmUp(num_warmup, target, mass_matrix)
                adaptation = kernel.at(0).adaptation(state, energy, parameters(0), warm_up, draw)
            round_energy, whitening = energy, None
            for t in range(num_warmup):
                settings = parameters(t) if adaptation is None else heated(adaptation.parameters, parameters(t))
                state, info = kernel.at(t).step(state, round_energy, settings, draw)
                store.num_gradients += info.num_gradients
                if adaptation is not None:
                    adaptation.update(state, info)
                    before, whitening = whitening, adaptation.parameters.whitening
                    if whitening is not None and whitening is not before:
                        round_energy = WhitenedEnergy(energy, whitening)
                        state = moved(state, before, whitening)
                if progress is not None:
                    progress(t + 1, total)
                if signals is not None:
                    leave_on_signal(signals)
            tuned = parameters(0) if adaptation is None else adaptation.parameters
            store.state = state
            if signals is not None:
                signals.raises = False

        assert store.state is not None
        state, whitening = store.state, tuned.whitening
        round_energy = energy if whitening is None else WhitenedEnergy(energy, whitening)
        for t in range(store.num_done, num_draws * thinning):
            now = num_warmup + t
            settings = parameters(now) if step_size is not None else heated(tuned, parameters(now))
            rewind = None if signals is None else draw.mark(start)
            try:
                if signals is not None:
                    signals.raises = True  # a transition may take minutes; it is given up
                state, info = step(kernel.at(now), state, round_energy, settings, draw)
            except Interrupted:
                if unfinished is not None and rewind is not None and store.num_done:
                    rewind()
                    unfinished.save(store, tuned, generator)
                raise
            finally:
                if signals is not None:
                    signals.raises = False
            store.add(state, info, whitening)
            if progress is not None:
                progress(now + 1, total)
            if unfinished is not None and signals is not None and (signals.received or unfinished.is_due()):
                unfinished.save(store, tuned, generator)
                leave_on_signal(signals)
    last = max(total - 1, 0)
    return Chains(
        store.positions,
        store.acceptance_probability,
        store.is_divergent,
        store.total_energy,
        state if whitening is None else moved(state, whitening, None),
        parameters(last) if step_size is not None else heated(tuned, parameters(last)),
        kernel.at(last),
        target,
        store.num_gradients,
        store.statistics,
    )


def moved(state: State, old: Whitening | None, new: Whitening | None) -> State:
    """The same places, and gradients there, in other coordinates; None are the chains' own."""
    x, gradient = state.position, state.gradient
    if old is not None:
        x, gradient = old.to_position(x), old.push(gradient)
    if new is not None:
        x, gradient = new.from_position(x), new.pull(gradient)
    return replace(state, position=x, gradient=gradient)


def heated(tuned: Parameters, scheduled: Parameters) -> Parameters:
    """What was tuned, at the temperature of the schedule."""
    heat = scheduled.temperature
    return tuned if tuned.temperature == heat else replace(tuned, temperature=heat)


def leave_on_signal(signals: SignalFlag) -> None:
    """End here if a signal came, unless a handler that was there before lets the chains go on."""
    if signals.received:
        signum = signals.received
        if not signals.hand_on(signum):
            raise Interrupted(signum)


def refuse_schedules(
    kernel: Kernel, parameters: Callable[[int], Parameters], given: Sequence[object], total: int
) -> None:
    """Read every schedule at every transition before the first of them, so that no run ends in the middle.

    Raises:
        ValueError: if one leaves its range; the sentence says at which transition.
    """
    is_scheduled = any(isinstance(value, Schedule) for value in (*given, *vars(kernel).values()))
    for t in range(total if is_scheduled else 1):
        parameters(t)
        try:
            kernel.at(t)
        except ValueError as error:
            raise ValueError(f"{error}, at transition {t}") from None


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
