"""Hamiltonian Monte Carlo with one trajectory length for all chains, for ChEES to tune."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from vaebench.energies.base import BaseEnergyFunction
from vaebench.mcmc.adaptation import Adaptation, WarmUp, reasonable_step_size
from vaebench.mcmc.chees import ChEESAdaptation
from vaebench.mcmc.kernels.hmc import kinetic_energy, leapfrog, van_der_corput
from vaebench.mcmc.kernels.kernel import Kernel, check_setting, metropolis, number
from vaebench.mcmc.state import Draw, Info, Parameters, State
from vaebench.schedules import Schedule

MAX_STEPS = 1000  # per trajectory


@dataclass(frozen=True)
class TrajectoryInfo(Info):
    """With what ChEES learns from.

    Attributes:
        start: Where the trajectory began, shape (S, D).
        end: Where it ended, before the decision, shape (S, D).
        end_momentum: With which momentum, shape (S, D).
        time: For how long it went, in the units of the step size.
    """

    start: Tensor = field(kw_only=True)
    end: Tensor = field(kw_only=True)
    end_momentum: Tensor = field(kw_only=True)
    time: Tensor = field(kw_only=True)


@dataclass(frozen=True)
class ChEESHMCKernel(Kernel):
    r"""Hamiltonian Monte Carlo whose trajectories take a time h T, with h in (0, 1) from Halton's sequence.

    All chains take the same number of leapfrog steps, ceil(h T / epsilon), so that none waits for another.

    References:
        An adaptive-MCMC scheme for setting trajectory lengths in Hamiltonian Monte Carlo (Hoffman, Radul & Sountsov,
        2021), https://proceedings.mlr.press/v130/hoffman21a.html; the acceptance rate of 0.651 is that of Beskos et al.
        (2013), https://arxiv.org/abs/1001.4460.
    Args:
        length: T, > 0, in the units of the step size; a warm-up finds one of its own, by ChEES.
    """

    target_acceptance: ClassVar[float | None] = 0.651
    has_momentum: ClassVar[bool] = True
    shares_step_size: ClassVar[bool] = True
    length: float | Schedule = 1.0

    def __post_init__(self) -> None:
        check_setting("length", self.length, above=0, below=math.inf)

    def adaptation(
        self, state: State, energy: BaseEnergyFunction, parameters: Parameters, warm_up: WarmUp, draw: Draw
    ) -> Adaptation:
        """Begin a warm-up with ChEES, from trajectories of one step."""
        parameters = replace(parameters, length=parameters.step_size)
        first = reasonable_step_size(self, state, energy, parameters, draw)
        return ChEESAdaptation(replace(parameters, step_size=first, length=first), warm_up)

    @torch.no_grad()
    def step(self, state: State, energy: BaseEnergyFunction, parameters: Parameters, draw: Draw) -> tuple[State, Info]:
        """Draw a momentum, follow a trajectory, accept or reject its end."""
        if parameters.length is None:
            parameters = replace(parameters, length=torch.full_like(parameters.step_size, number(self.length)))
        h, inverse_mass = van_der_corput(state.iteration), parameters.inverse_mass_matrix
        num_steps = min(max(1, math.ceil(h * parameters.num_steps)), MAX_STEPS)
        momentum = draw.normal(state.position) * (inverse_mass.rsqrt() * parameters.temperature**0.5)
        log_u = draw.log_uniform(state.energy)
        proposal, end_momentum = leapfrog(energy, state, momentum, parameters, num_steps)
        start_energy = state.energy + kinetic_energy(momentum, inverse_mass)
        end_energy = proposal.energy + kinetic_energy(end_momentum, inverse_mass)
        moved, info = metropolis(
            state,
            proposal,
            start_energy,
            end_energy,
            log_u,
            temperature=parameters.chain_temperature,
            num_gradients=num_steps,
        )
        assert parameters.length is not None
        return moved, TrajectoryInfo(
            **vars(info),
            start=state.position,
            end=proposal.position,
            end_momentum=end_momentum,
            time=h * parameters.length,
        )
