"""The base of the kernels: a state, a report on one transition, and the two functions `init` and `step`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import Field, fields, is_dataclass, replace
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor
from typing_extensions import Self

from vaebench.energies.base import BaseEnergyFunction
from vaebench.mcmc.adaptation import Adaptation, WarmUp, WindowAdaptation, reasonable_step_size
from vaebench.mcmc.state import Draw, Info, Parameters, State, of_chains
from vaebench.messages import NamedArguments, check_range
from vaebench.schedules import Schedule

T = TypeVar("T")
MAX_ENERGY_CHANGE = 1000.0  # nats; Stan's threshold for a divergence (Betancourt, 2017)


class Report(NamedTuple):
    """What a kernel says about a run beyond what is said about every kernel.

    Attributes:
        values: Numbers for the table and the files, by name.
        sentences: What is wrong, and what to change; empty where nothing is.
    """

    values: dict[str, float]
    sentences: list[str]


class Kernel(NamedArguments, ABC):
    """A transition on exp(-U / T), as a frozen description. Chains are a batch dimension.

    Attributes:
        target_acceptance: Acceptance rate to tune the step size for; None where nothing can be tuned.
        is_exact: Whether it leaves the density invariant; where it does not, `caveat` says so.
        is_metropolised: Whether a proposal of known energy change is accepted or rejected.
        is_reversible: Whether the flow between any two sets is the same both ways in equilibrium.
        chains_are_apart: Whether no chain sees another.
        has_momentum: Whether momenta are drawn anew in each transition, so that E-BFMI means something.
        uses_gradients: Whether proposals follow gradients; without, none are counted, and a large change of energy is
            an ordinary rejection and no divergence.
        min_dims: Dimensions that it needs.
        states: The types of its states.
        shares_step_size: Whether all chains must have one step size, because it decides how many steps they take.
        if_slow: What to change where chains mix slowly, the end of a sentence.
        caveat: A sentence for every report, or None.
    """

    target_acceptance: ClassVar[float | None] = None
    is_exact: ClassVar[bool] = True
    is_metropolised: ClassVar[bool] = True
    is_reversible: ClassVar[bool] = True
    chains_are_apart: ClassVar[bool] = True
    has_momentum: ClassVar[bool] = False
    uses_gradients: ClassVar[bool] = True
    min_dims: ClassVar[int] = 1
    states: ClassVar[tuple[type[State], ...]] = (State,)
    shares_step_size: ClassVar[bool] = False
    if_slow: ClassVar[str] = "raise sampler.num_draws"
    caveat: ClassVar[str | None] = None

    @property
    def name(self) -> str:
        """The name in the configuration, which is the module's."""
        return type(self).__module__.rsplit(".", 1)[-1]

    def at(self, transition: int) -> Self:
        """Return the kernel of one transition, with a number for each schedule.

        Raises:
            ValueError: if the number is out of range.
        """
        changed: dict[str, Any] = {}
        settings: tuple[Field[Any], ...] = fields(self) if is_dataclass(self) else ()
        for setting in settings:
            value = getattr(self, setting.name)
            if isinstance(value, Schedule):
                scheduled = value(transition)
                changed[setting.name] = round(scheduled) if isinstance(setting.default, int) else scheduled
        return replace(self, **changed) if changed else self  # type: ignore[type-var]

    @property
    def can_be_tuned(self) -> bool:
        """Whether a warm-up can find a step size: by an acceptance rate, where the kernel has no way of its own."""
        return self.target_acceptance is not None

    @property
    def takes_mass_matrix(self) -> bool:
        """Whether its warm-up is in windows, which can learn a dense or low-rank mass matrix."""
        return self.states == (State,) and type(self).adaptation is Kernel.adaptation

    def why_not(self, num_dims: int) -> str | None:
        """Say why this kernel does not move in so many dimensions, as a clause after its name, or None where it does.

        >>> from vaebench.mcmc.kernels.mclmc import MCLMCKernel
        >>> MCLMCKernel().why_not(1)
        'needs at least 2 dimensions, got 1'
        """
        return None if num_dims >= self.min_dims else f"needs at least {self.min_dims} dimensions, got {num_dims}"

    def caution(self, num_dims: int) -> str | None:
        """Say what makes it slow in so many dimensions, and what is not, as a clause after its name, or None."""
        return None

    def adaptation(
        self, state: State, energy: BaseEnergyFunction, parameters: Parameters, warm_up: WarmUp, draw: Draw
    ) -> Adaptation:
        """Begin a warm-up; most kernels tune a step size and a mass matrix in windows.

        Args:
            state: Where the chains start.
            energy: What to draw from.
            parameters: Where to begin.
            warm_up: How long it is, and what to tune for.
            draw: Source of randomness.
        """
        first = reasonable_step_size(self, state, energy, parameters, draw)
        return WindowAdaptation(replace(parameters, step_size=first), warm_up)

    @torch.no_grad()
    def init(self, position: Tensor, energy: BaseEnergyFunction) -> State:
        """Evaluate the energy at the starting points, once.

        Args:
            position: Shape (S, D).
            energy: What to draw from.

        Raises:
            ValueError: if a chain starts where the energy or its gradient is not finite; it could never move.
        """
        if position.ndim != 2 or 0 in position.shape:
            raise ValueError(f"expected starting points of shape (chains, dimensions), got {tuple(position.shape)}")
        if energy.num_dims not in (None, position.shape[1]):
            raise ValueError(
                f"expected starting points of {energy.num_dims} dimensions for {type(energy).__name__}, got "
                f"{position.shape[1]}"
            )
        if (reason := self.why_not(position.shape[1])) is not None:
            raise ValueError(f"kernel={self.name} {reason}")
        value, gradient = energy.value_and_grad(position)
        if value.shape != position.shape[:1] or gradient.shape != position.shape:
            raise ValueError(
                f"expected an energy of shape {tuple(position.shape[:1])} with a gradient of shape "
                f"{tuple(position.shape)}, got {tuple(value.shape)} and {tuple(gradient.shape)}"
            )
        is_finite = value.isfinite() & gradient.isfinite().all(-1)
        if not is_finite.all():
            bad = (~is_finite).nonzero().flatten().tolist()
            raise ValueError(
                f"expected a finite energy and gradient at every starting point; chains {bad[:5]} of "
                f"{len(position)} start outside the support of the target"
            )
        return State(position, value, gradient)

    @abstractmethod
    def step(self, state: State, energy: BaseEnergyFunction, parameters: Parameters, draw: Draw) -> tuple[State, Info]:
        """Make one transition in every chain.

        Args:
            state: Where the chains are.
            energy: What to draw from.
            parameters: Step size, mass and temperature.
            draw: Source of all randomness.
        """

    def report(self, means: Mapping[str, Tensor]) -> Report:
        """Say what the kernel's own statistics mean; most kernels keep none.

        Args:
            means: `Info.statistics`, averaged over the transitions after warm-up, float64, each of shape (S, ...).
        """
        return Report({}, [])


class Caller:
    """Calls the pieces of a transition."""

    def __call__(self, piece: Callable[..., T], *arguments: Any) -> T:
        """Call one piece."""
        return piece(*arguments)

    def blocks(self, num_steps: int) -> tuple[int, ...]:
        """The numbers of steps, adding up to `num_steps`, that one call makes each."""
        return (num_steps,)


EAGER = Caller()


class CompilableKernel(Kernel):
    """A kernel whose transitions are random numbers and a few pieces that can be compiled.

    A piece is a function of tensors, states, parameters, the energy and a number of steps. It draws nothing, the host
    reads no value in it, and the number of the transition has no part in it.
    """

    def step(self, state: State, energy: BaseEnergyFunction, parameters: Parameters, draw: Draw) -> tuple[State, Info]:
        """Make one transition in every chain."""
        return self.step_in_pieces(EAGER, state, energy, parameters, draw)

    @abstractmethod
    def step_in_pieces(
        self, call: Caller, state: State, energy: BaseEnergyFunction, parameters: Parameters, draw: Draw
    ) -> tuple[State, Info]:
        """Make one transition in every chain.

        Args:
            call: Calls each piece, compiled or as it is.
            state: Where the chains are.
            energy: What to draw from.
            parameters: Step size, mass and temperature.
            draw: Source of all randomness.
        """


def check_setting(name: str, value: float | Schedule, **bounds: Any) -> None:
    """Check a setting of a kernel with `check_range`; a schedule is checked at each transition, by `Kernel.at`."""
    if not isinstance(value, Schedule):
        check_range(name, value, **bounds)


def number(value: float | Schedule) -> float:
    """Return a setting as a number: of a schedule, its first."""
    return value(0) if isinstance(value, Schedule) else value


def all_finite(value: Tensor, gradient: Tensor) -> Tensor:
    """Whether the energy and its whole gradient are finite, per chain, shape (S,), bool."""
    return (gradient * 0).sum(-1).add_(value).abs_() < math.inf


def metropolis(
    state: State,
    proposal: State,
    start_energy: Tensor,
    end_energy: Tensor,
    log_u: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    num_gradients: int | Tensor = 1,
) -> tuple[State, Info]:
    """Accept or reject in log space; what is not finite is rejected and counted as divergent.

    Args:
        state: Where the chains are.
        proposal: Where they would go.
        start_energy: H at the start of the trajectory, shape (S,).
        end_energy: H at its end, shape (S,).
        log_u: Logarithms of uniform draws, at most 0, shape (S,), one per chain.
        temperature: T, or shape (S, 1).
        num_gradients: Gradient evaluations that the proposal cost, a number or int64 of shape (S,).
    """
    energy_change = (end_energy - start_energy) / of_chains(temperature)
    log_ratio = -energy_change
    is_accepted = log_u <= log_ratio  # False for nan and +inf
    # -inf would always be accepted and never left: a fault of the energy, not a better state.
    is_finite = end_energy.abs() < math.inf  # one pass less than isfinite
    is_accepted &= is_finite
    if not isinstance(num_gradients, Tensor):
        num_gradients = torch.full_like(is_accepted, num_gradients, dtype=torch.int64)
    info = Info(
        acceptance_probability=log_ratio.clamp_(max=0).exp_().where(is_finite, 0.0),
        is_accepted=is_accepted,
        is_divergent=~((energy_change <= MAX_ENERGY_CHANGE) & is_finite),
        energy_change=energy_change,
        total_energy=torch.where(is_accepted, end_energy, start_energy),
        num_gradients=num_gradients,
    )
    return select(is_accepted, proposal, state), info


def select(is_accepted: Tensor, proposal: State, state: State) -> State:
    """Return the proposal in the chains that accept it, and the state in the others, one iteration on."""
    rows = is_accepted.unsqueeze(-1)
    return State(
        torch.where(rows, proposal.position, state.position),
        torch.where(is_accepted, proposal.energy, state.energy),
        torch.where(rows, proposal.gradient, state.gradient),
        state.iteration + 1,
    )
