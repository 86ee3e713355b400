"""The Metropolis-adjusted Langevin algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vaebench.energies.base import BaseEnergyFunction
from vaebench.mcmc.kernels.kernel import Caller, CompilableKernel, metropolis
from vaebench.mcmc.state import Draw, Info, Parameters, State


@dataclass(frozen=True)
class MALAKernel(CompilableKernel):
    r"""A Langevin step as a proposal, accepted or rejected.

    .. math:: x' = x - \eta M^{-1} \nabla U(x) + \sqrt{2 \eta T M^{-1}} \, \xi, \quad \log \alpha =
        \frac{1}{T} \Big[ U(x) - U(x') + \frac{\|x' - x + \eta M^{-1} \nabla U(x)\|_M^2 -
        \|x - x' + \eta M^{-1} \nabla U(x')\|_M^2}{4 \eta} \Big]

    One step costs one gradient, since the one at the old position is kept. It is one leapfrog step of Hamiltonian Monte
    Carlo with eta = epsilon^2 / 2.

    References:
        Exponential convergence of Langevin distributions and their discrete approximations (Roberts & Tweedie, 1996),
        https://doi.org/10.2307/3318418
        Optimal scaling of discrete approximations to Langevin diffusions (Roberts & Rosenthal, 1998),
        https://doi.org/10.1111/1467-9868.00123, for the acceptance rate of 0.574.
    """

    target_acceptance: ClassVar[float | None] = 0.574
    if_slow: ClassVar[str] = "raise sampler.num_draws, or choose sampler=hmc"

    @torch.no_grad()
    def step_in_pieces(
        self, call: Caller, state: State, energy: BaseEnergyFunction, parameters: Parameters, draw: Draw
    ) -> tuple[State, Info]:
        """Draw noise, then propose and judge."""
        noise, log_u = draw.normal(state.position), draw.log_uniform(state.energy)
        return call(propose_and_judge, state, energy, parameters, noise, log_u)


def propose_and_judge(
    state: State, energy: BaseEnergyFunction, parameters: Parameters, noise: Tensor, log_u: Tensor
) -> tuple[State, Info]:
    """Make the transition, at the cost of one gradient.

    Args:
        state: Where the chains are.
        energy: What to draw from.
        parameters: Step size, mass and temperature.
        noise: From N(0, 1), shape (S, D).
        log_u: Logarithms of uniform draws, shape (S,).
    """
    rate, temperature = parameters.step_size * parameters.inverse_mass_matrix, parameters.temperature
    noise = noise * (rate * (2 * temperature)).sqrt()
    x = state.position - rate * state.gradient + noise
    value, gradient = energy.value_and_grad(x)
    forward = (noise.square() / rate).sum(-1) / 4
    backward = ((state.position - x + rate * gradient).square() / rate).sum(-1) / 4
    proposal = State(x, value, gradient, state.iteration)
    return metropolis(
        state, proposal, state.energy + forward, value + backward, log_u, temperature=temperature, num_gradients=1
    )
