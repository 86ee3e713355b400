"""What every kernel shares: a state, a report on one transition, and the two functions `init` and `step`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

ValueAndGrad = Callable[[Tensor], tuple[Tensor, Tensor]]
"""An energy U = -log density with its gradient: (S, D) -> (S,), (S, D). Row s depends on chain s only."""

Gradient = Callable[[Tensor], Tensor]
"""The gradient of U alone: (S, D) -> (S, D)."""

MAX_ENERGY_CHANGE = 1000.0  # nats; Stan's threshold for a trajectory that left the level set (Betancourt, 2017)


@dataclass(frozen=True)
class State:
    """Where S chains are. The energy and its gradient travel along, so that nothing is computed twice.

    Attributes:
        position: Shape (S, D).
        energy: U at the position, nats, shape (S,).
        gradient: Gradient of U, shape (S, D).
        iteration: Transitions made so far, the same for all chains.
    """

    position: Tensor
    energy: Tensor
    gradient: Tensor
    iteration: int = 0


@dataclass(frozen=True)
class Parameters:
    """What adaptation tunes.

    Attributes:
        step_size: Scalar, or shape (S, 1) for one per chain.
        inverse_mass_matrix: Diagonal of M^-1, shape (D,); about the target's variances.
    """

    step_size: Tensor
    inverse_mass_matrix: Tensor


@dataclass(frozen=True)
class Info:
    """What happened in one transition, per chain, each of shape (S,).

    Attributes:
        acceptance_probability: min(1, exp(-energy_change)), and 0 where that is not a number.
        is_accepted: Whether the chain moved to the proposal.
        is_divergent: Whether the energy error was not finite, or above 1000 nats.
        energy_change: H(proposal) - H(start), nats; may be inf or nan.
        total_energy: H of the state that was kept, nats: the series of E-BFMI.
    """

    acceptance_probability: Tensor
    is_accepted: Tensor
    is_divergent: Tensor
    energy_change: Tensor
    total_energy: Tensor


class Kernel(ABC):
    """A transition that leaves exp(-U) invariant. Chains are a batch dimension and never see each other.

    Args:
        value_and_grad: The energy U and its gradient.
    """

    target_acceptance: ClassVar[float]

    def __init__(self, value_and_grad: ValueAndGrad) -> None:
        self.value_and_grad = value_and_grad

    @torch.no_grad()
    def init(self, position: Tensor) -> State:
        """Evaluate the energy at the starting points, once.

        Args:
            position: Shape (S, D).

        Raises:
            ValueError: if a chain starts where the energy or its gradient is not finite; it could never move.
        """
        if position.ndim != 2 or 0 in position.shape:
            raise ValueError(f"expected starting points of shape (chains, dimensions), got {tuple(position.shape)}")
        energy, gradient = self.value_and_grad(position)
        if energy.shape != position.shape[:1] or gradient.shape != position.shape:
            raise ValueError(
                f"expected an energy of shape {tuple(position.shape[:1])} with a gradient of shape "
                f"{tuple(position.shape)}, got {tuple(energy.shape)} and {tuple(gradient.shape)}"
            )
        is_finite = energy.isfinite() & gradient.isfinite().all(-1)
        if not is_finite.all():
            bad = (~is_finite).nonzero().flatten().tolist()
            raise ValueError(
                f"expected a finite energy and gradient at every starting point; chains {bad[:5]} of "
                f"{len(position)} start outside the support of the target"
            )
        return State(position, energy, gradient)

    @abstractmethod
    def step(
        self, state: State, parameters: Parameters, generator: torch.Generator | None = None
    ) -> tuple[State, Info]:
        """Make one transition in every chain."""

    @abstractmethod
    def num_gradients(self, iteration: int) -> int:
        """Gradient evaluations per chain in the transition with this number."""


def metropolis(
    state: State, proposal: State, start_energy: Tensor, end_energy: Tensor, log_u: Tensor
) -> tuple[State, Info]:
    """Accept or reject in log space; what is not finite is rejected and counted as divergent.

    Args:
        state: Where the chains are.
        proposal: Where they would go.
        start_energy: H at the start of the trajectory, shape (S,).
        end_energy: H at its end, shape (S,).
        log_u: Logarithms of uniform draws, at most 0, shape (S,), one per chain.
    """
    energy_change = end_energy - start_energy
    is_accepted = log_u <= -energy_change  # False for nan and +inf
    # -inf would be accepted with certainty and never left again: it is a fault of the energy, not a better state
    is_finite = end_energy.isfinite()
    is_accepted &= is_finite
    rows = is_accepted.unsqueeze(-1)
    kept = State(
        torch.where(rows, proposal.position, state.position),
        torch.where(is_accepted, proposal.energy, state.energy),
        torch.where(rows, proposal.gradient, state.gradient),
        state.iteration + 1,
    )
    probability = torch.exp(-energy_change.clamp(min=0)).where(is_finite, 0.0)
    info = Info(
        acceptance_probability=probability,
        is_accepted=is_accepted,
        is_divergent=~((energy_change <= MAX_ENERGY_CHANGE) & is_finite),
        energy_change=energy_change,
        total_energy=torch.where(is_accepted, end_energy, start_energy),
    )
    return kept, info


def log_uniform(num_chains: int, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw the logarithm of one uniform in (0, 1] per chain, shape (S,)."""
    u = torch.rand(num_chains, dtype=like.dtype, device=like.device, generator=generator)
    return torch.log1p(-u)
