"""Microcanonical Monte Carlo, accepted or rejected."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from vaebench.energies.base import BaseEnergyFunction
from vaebench.mcmc.adaptation import Adaptation, WarmUp, reasonable_step_size
from vaebench.mcmc.kernels.hmc import van_der_corput
from vaebench.mcmc.kernels.kernel import Kernel, check_setting, metropolis, number
from vaebench.mcmc.kernels.mclmc import isokinetic, unit
from vaebench.mcmc.microcanonical import MicrocanonicalAdaptation
from vaebench.mcmc.state import Draw, Info, Parameters, State
from vaebench.schedules import Schedule

MAX_STEPS = 500  # per trajectory


@dataclass(frozen=True)
class AdjustedMCLMCKernel(Kernel):
    r"""Microcanonical trajectories from a fresh direction, whose ends are accepted or rejected.

    .. math:: \alpha = \min(1, e^{-W}), \quad W = \frac{U(x') - U(x)}{T} + (D - 1) \log \frac{\text{speed at the end}}
        {\text{speed at the start}}

    Trajectory lengths are spread evenly between 0 and 2 L, the same for all chains. A step of McLachlan's integrator
    costs two gradients.

    References:
        Metropolis adjusted microcanonical Hamiltonian Monte Carlo (Robnik, Cohn-Gordon & Seljak, 2025),
        https://arxiv.org/abs/2503.01707; the acceptance rate of 0.9 is theirs.
    Args:
        length: L, > 0, in the units of the step size; a warm-up finds one of its own.
    """

    target_acceptance: ClassVar[float | None] = 0.9
    shares_step_size: ClassVar[bool] = True
    min_dims: ClassVar[int] = 2
    length: float | Schedule = 1.0

    def __post_init__(self) -> None:
        check_setting("length", self.length, above=0, below=math.inf)

    def adaptation(
        self, state: State, energy: BaseEnergyFunction, parameters: Parameters, warm_up: WarmUp, draw: Draw
    ) -> Adaptation:
        """Begin a warm-up in two parts."""
        parameters = replace(parameters, length=parameters.step_size)
        first = reasonable_step_size(self, state, energy, parameters, draw)
        return MicrocanonicalAdaptation(state, replace(parameters, step_size=first), warm_up, follows_length=False)

    @torch.no_grad()
    def step(self, state: State, energy: BaseEnergyFunction, parameters: Parameters, draw: Draw) -> tuple[State, Info]:
        """Draw a direction, follow a trajectory, accept or reject its end."""
        if parameters.length is None:
            parameters = replace(parameters, length=torch.full_like(parameters.step_size, number(self.length)))
        share = 2 * van_der_corput(state.iteration)
        num_steps = min(max(1, round(share * parameters.num_steps)), MAX_STEPS)
        direction = unit(draw.normal(state.position))
        log_u = draw.log_uniform(state.energy)
        proposal, _, kinetic = isokinetic(energy, state, direction, parameters, num_steps)
        temperature = parameters.chain_temperature
        return metropolis(
            state,
            proposal,
            state.energy,
            proposal.energy + temperature * kinetic,
            log_u,
            temperature=temperature,
            num_gradients=2 * num_steps,
        )
