r"""Hamiltonian Monte Carlo with a diagonal mass matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vaebench.energies.base import BaseEnergyFunction
from vaebench.mcmc.kernels.kernel import Caller, CompilableKernel, check_setting, metropolis, number
from vaebench.mcmc.state import Draw, Info, Parameters, State
from vaebench.schedules import Schedule


@dataclass(frozen=True)
class HMCKernel(CompilableKernel):
    r"""Hamiltonian Monte Carlo (Duane et al., 1987; Neal, 2011).

    .. math:: H(x, p) = U(x) + \tfrac12 p^\top M^{-1} p, \quad p \sim N(0, T M), \quad
        \alpha = \min(1, e^{(H(x, p) - H(x', p')) / T})

    A trajectory has `num_leapfrog` leapfrog steps on average; it costs one gradient per step, since the one at its
    start is kept in the state. Lengths vary from transition to transition, because a fixed length resonates with a
    near-Gaussian target, and are shared by all chains, so that none waits for another. They follow the van der Corput
    sequence and need no random number.

    References:
        MCMC using Hamiltonian dynamics (Neal, 2011), https://arxiv.org/abs/1206.1901
        Optimal tuning of the hybrid Monte Carlo algorithm (Beskos et al., 2013), https://arxiv.org/abs/1001.4460,
        for the acceptance rate of 0.651.
    Args:
        num_leapfrog: Mean number of leapfrog steps, >= 1.
        jitter: Relative half-width of the range of lengths, in [0, 1]; 0 fixes them.
    """

    target_acceptance: ClassVar[float | None] = 0.651
    has_momentum: ClassVar[bool] = True
    if_slow: ClassVar[str] = "raise sampler.num_draws or num_leapfrog"
    num_leapfrog: int | Schedule = 10
    jitter: float | Schedule = 0.5

    def __post_init__(self) -> None:
        check_setting("num_leapfrog", self.num_leapfrog, at_least=1, whole=True)
        check_setting("jitter", self.jitter, at_least=0, at_most=1)

    def length(self, iteration: int) -> int:
        """Leapfrog steps in the transition with this number."""
        spread = number(self.jitter) * (2 * van_der_corput(iteration) - 1)
        return max(1, round(number(self.num_leapfrog) * (1 + spread)))

    @torch.no_grad()
    def step_in_pieces(
        self, call: Caller, state: State, energy: BaseEnergyFunction, parameters: Parameters, draw: Draw
    ) -> tuple[State, Info]:
        """Draw a momentum, follow a trajectory, accept or reject its end."""
        num_steps = self.length(state.iteration)
        noise, log_u = draw.normal(state.position), draw.log_uniform(state.energy)
        num_gradients = torch.full_like(log_u, num_steps, dtype=torch.int64)
        x, p, start_energy = call(depart, state, parameters, noise)
        for count in call.blocks(num_steps - 1):
            x, p = call(glide, energy, x, p, parameters, count)
        return call(arrive, state, energy, x, p, start_energy, parameters, log_u, num_gradients)


def depart(state: State, parameters: Parameters, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Begin a trajectory: turn noise from N(0, 1) into a momentum, make half a kick and a drift.

    Returns:
        Position and momentum, each of shape (S, D), and H at the start, nats, shape (S,).
    """
    momentum = noise * (parameters.inverse_mass_matrix.rsqrt() * parameters.temperature**0.5)
    start_energy = state.energy + kinetic_energy(momentum, parameters.inverse_mass_matrix)
    return *half_kick_and_drift(state, momentum, parameters), start_energy


def arrive(
    state: State,
    energy: BaseEnergyFunction,
    x: Tensor,
    p: Tensor,
    start_energy: Tensor,
    parameters: Parameters,
    log_u: Tensor,
    num_gradients: Tensor,
) -> tuple[State, Info]:
    """Make the last half kick, and accept or reject."""
    proposal, momentum = half_kick(energy, x, p, parameters, state.iteration)
    end_energy = proposal.energy + kinetic_energy(momentum, parameters.inverse_mass_matrix)
    return metropolis(
        state,
        proposal,
        start_energy,
        end_energy,
        log_u,
        temperature=parameters.temperature,
        num_gradients=num_gradients,
    )


def kinetic_energy(momentum: Tensor, inverse_mass_matrix: Tensor) -> Tensor:
    """p' M^-1 p / 2, nats, shape (S,); the constant log det M / 2 cancels in every difference."""
    return momentum.square().mul_(inverse_mass_matrix).sum(-1).mul_(0.5)


def leapfrog(
    energy: BaseEnergyFunction, state: State, momentum: Tensor, parameters: Parameters, num_steps: int
) -> tuple[State, Tensor]:
    """Integrate Hamilton's equations: reversible, volume preserving, of second order.

    Adjacent half kicks merge into one, so a step is two updates and one gradient, and the host reads no value. Only the
    last step needs the energy; the others compute the gradient alone.

    Returns:
        The end point, and its momentum of shape (S, D).
    """
    x, p = half_kick_and_drift(state, momentum, parameters)
    x, p = glide(energy, x, p, parameters, num_steps - 1)
    return half_kick(energy, x, p, parameters, state.iteration)


def half_kick_and_drift(state: State, momentum: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
    """Return position and momentum after the first half kick and drift, each of shape (S, D)."""
    p = torch.addcmul(momentum, parameters.step_size, state.gradient, value=-0.5)
    return torch.addcmul(state.position, parameters.step_size * parameters.inverse_mass_matrix, p), p


def glide(
    energy: BaseEnergyFunction, x: Tensor, p: Tensor, parameters: Parameters, count: int
) -> tuple[Tensor, Tensor]:
    """Return position and momentum after so many whole kicks and drifts, each of shape (S, D)."""
    step_size = parameters.step_size
    drift = step_size * parameters.inverse_mass_matrix
    for done in range(count):
        kick = torch.addcmul if done == 0 else Tensor.addcmul_  # the momentum that was given stays as it is
        p = kick(p, step_size, energy.gradient(x), value=-1)
        x = torch.addcmul(x, drift, p)
    return x, p


def half_kick(
    energy: BaseEnergyFunction, x: Tensor, p: Tensor, parameters: Parameters, iteration: int
) -> tuple[State, Tensor]:
    """Return the state at the end of a trajectory, and its momentum of shape (S, D), after the last half kick."""
    value, gradient = energy.value_and_grad(x)
    return State(x, value, gradient, iteration), torch.addcmul(p, parameters.step_size, gradient, value=-0.5)


def van_der_corput(index: int) -> float:
    """The base-2 radical inverse of `index` + 1, in (0, 1): evenly spread over every stretch of indices."""
    value, scale, n = 0.0, 0.5, index + 1
    while n:
        value += scale * (n & 1)
        n >>= 1
        scale /= 2
    return value
