"""Generalised Hamiltonian Monte Carlo: a momentum that persists, and a slice variable that does, too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from vaebench.energies.base import BaseEnergyFunction
from vaebench.mcmc.adaptation import Adaptation, WarmUp
from vaebench.mcmc.kernels.hmc import kinetic_energy, leapfrog
from vaebench.mcmc.kernels.kernel import Kernel, check_setting, metropolis, number
from vaebench.mcmc.meads import MEADSAdaptation
from vaebench.mcmc.state import Draw, Info, Parameters, State
from vaebench.schedules import Schedule


@dataclass(frozen=True)
class GHMCState(State):
    """With what persists besides the position.

    Attributes:
        momentum: M^-1/2 p / sqrt(T), N(0, I) in equilibrium, so that it stays right where M and T change; (S, D).
        slice: v in (-1, 1): a proposal is accepted where log |v| <= -energy_change; shape (S,).
    """

    momentum: Tensor = field(kw_only=True)
    slice: Tensor = field(kw_only=True)


@dataclass(frozen=True)
class GHMCKernel(Kernel):
    r"""Generalised Hamiltonian Monte Carlo (Horowitz, 1991): one leapfrog step, and a momentum refreshed in part.

    .. math:: p \leftarrow \sqrt{1 - \alpha} \, p + \sqrt{\alpha} \, \xi, \quad \xi \sim N(0, T M), \quad
        \alpha = 1 - e^{-2 \epsilon / \tau}

    A rejection reverses the momentum. To bunch rejections, with long runs between them, the uniform variable of the
    decision persists too (Neal, 2020): v in (-1, 1) advances by delta = alpha / 2 in each transition, and becomes
    v exp(energy_change) when a proposal is accepted. The kernel is not reversible, and costs one gradient.

    References:
        A generalized guided Monte Carlo algorithm (Horowitz, 1991), https://doi.org/10.1016/0370-2693(91)90812-5
        Non-reversibly updating a uniform [0,1] value for Metropolis accept/reject decisions (Neal, 2020),
        https://arxiv.org/abs/2001.11950
        Tuning-free generalized Hamiltonian Monte Carlo (Hoffman & Sountsov, 2022),
        https://proceedings.mlr.press/v151/hoffman22a.html, for delta = alpha / 2 and its warm-up, MEADS.
    Args:
        length: tau, the time after which the momentum is forgotten, > 0, in the units of the step size; a warm-up
            finds one of its own.
    """

    is_reversible: ClassVar[bool] = False
    states: ClassVar[tuple[type[State], ...]] = (GHMCState,)
    if_slow: ClassVar[str] = "raise sampler.num_draws"
    length: float | Schedule = 1.0

    def __post_init__(self) -> None:
        check_setting("length", self.length, above=0)

    @property
    def can_be_tuned(self) -> bool:
        """By MEADS."""
        return True

    def adaptation(
        self, state: State, energy: BaseEnergyFunction, parameters: Parameters, warm_up: WarmUp, draw: Draw
    ) -> Adaptation:
        """Begin a warm-up with MEADS."""
        return MEADSAdaptation(state, parameters, warm_up)

    @torch.no_grad()
    def step(self, state: State, energy: BaseEnergyFunction, parameters: Parameters, draw: Draw) -> tuple[State, Info]:
        """Refresh the momentum in part, make one leapfrog step, accept it or turn back."""
        if isinstance(state, GHMCState):
            momentum, v = state.momentum, state.slice
        else:
            momentum = draw.normal(state.position)
            sign = torch.where(draw.uniform(state.energy) < 0.5, -1.0, 1.0).to(state.energy)
            v = sign * draw.log_uniform(state.energy).exp()
        length = number(self.length) if parameters.length is None else parameters.length
        alpha = -torch.expm1(-2 * parameters.step_size / length)
        momentum = (1 - alpha).sqrt() * momentum + alpha.sqrt() * draw.normal(momentum)
        v = (v + 1 + alpha.flatten() / 2) % 2 - 1

        temperature = parameters.temperature
        scale = parameters.inverse_mass_matrix.rsqrt() * temperature**0.5
        p = momentum * scale
        proposal, end = leapfrog(energy, state, p, parameters, 1)
        start_energy = state.energy + kinetic_energy(p, parameters.inverse_mass_matrix)
        end_energy = proposal.energy + kinetic_energy(end, parameters.inverse_mass_matrix)
        moved, info = metropolis(
            state,
            proposal,
            start_energy,
            end_energy,
            v.abs().log(),
            temperature=parameters.chain_temperature,
            num_gradients=1,
        )
        persisting = GHMCState(
            **vars(moved),
            momentum=torch.where(info.is_accepted.unsqueeze(-1), end / scale, -momentum),
            slice=torch.where(info.is_accepted, v * info.energy_change.exp(), v),
        )
        return persisting, info
