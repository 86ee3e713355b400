r"""Hamiltonian Monte Carlo with a diagonal mass matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from vaebench.mcmc.kernels.kernel import (
    Gradient,
    Info,
    Kernel,
    Parameters,
    State,
    ValueAndGrad,
    log_uniform,
    metropolis,
)


class HMCKernel(Kernel):
    r"""Hamiltonian Monte Carlo (Duane et al., 1987; Neal, 2011).

    .. math:: H(x, p) = U(x) + \tfrac12 p^\top M^{-1} p, \quad p \sim N(0, M), \quad
        \alpha = \min(1, e^{H(x, p) - H(x', p')})

    A trajectory has `num_leapfrog` leapfrog steps on average; it costs one gradient per step, for the one at its start
    is kept in the state. Lengths vary from transition to transition, because a fixed length resonates with a
    near-Gaussian target, and are shared by all chains, so that none waits for another. They follow the van der Corput
    sequence and need no random number.

    References:
        MCMC using Hamiltonian dynamics (Neal, 2011), https://arxiv.org/abs/1206.1901
        Optimal tuning of the hybrid Monte Carlo algorithm (Beskos et al., 2013), https://arxiv.org/abs/1001.4460,
        for the acceptance rate of 0.651.
    Args:
        value_and_grad: The energy U and its gradient.
        num_leapfrog: Mean number of leapfrog steps, >= 1.
        jitter: Relative half-width of the range of lengths, in [0, 1]; 0 fixes them.
        gradient: The gradient alone, where it costs less: a trajectory needs the energy at its end only.
    """

    target_acceptance = 0.651

    def __init__(
        self,
        value_and_grad: ValueAndGrad,
        num_leapfrog: int = 10,
        jitter: float = 0.5,
        gradient: Gradient | None = None,
    ) -> None:
        super().__init__(value_and_grad)
        self.gradient = gradient
        self.num_leapfrog = num_leapfrog
        self.jitter = jitter

    def num_gradients(self, iteration: int) -> int:
        """Leapfrog steps in the transition with this number."""
        return max(1, round(self.num_leapfrog * (1 + self.jitter * (2 * van_der_corput(iteration) - 1))))

    @torch.no_grad()
    def step(
        self, state: State, parameters: Parameters, generator: torch.Generator | None = None
    ) -> tuple[State, Info]:
        """Draw a momentum, follow a trajectory, accept or reject its end."""
        x = state.position
        noise = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        momentum = noise * parameters.inverse_mass_matrix.rsqrt()
        return self.transition(state, parameters, momentum, log_uniform(len(x), x, generator))

    def transition(self, state: State, parameters: Parameters, momentum: Tensor, log_u: Tensor) -> tuple[State, Info]:
        """Make the transition that these draws determine.

        Args:
            state: Where the chains are.
            parameters: Step size and mass.
            momentum: Shape (S, D).
            log_u: Shape (S,), at most 0.
        """
        proposal, end_momentum = leapfrog(
            self.value_and_grad, state, momentum, parameters, self.num_gradients(state.iteration), self.gradient
        )
        start_energy = state.energy + kinetic_energy(momentum, parameters.inverse_mass_matrix)
        end_energy = proposal.energy + kinetic_energy(end_momentum, parameters.inverse_mass_matrix)
        return metropolis(state, proposal, start_energy, end_energy, log_u)


def kinetic_energy(momentum: Tensor, inverse_mass_matrix: Tensor) -> Tensor:
    """p' M^-1 p / 2, nats, shape (S,); the constant log det M / 2 cancels in every difference."""
    return 0.5 * (momentum.square() * inverse_mass_matrix).sum(-1)


def leapfrog(
    value_and_grad: ValueAndGrad,
    state: State,
    momentum: Tensor,
    parameters: Parameters,
    num_steps: int,
    gradient_alone: Gradient | None = None,
) -> tuple[State, Tensor]:
    """Integrate Hamilton's equations: reversible, volume preserving, of second order.

    Half kicks that meet are one whole kick, so a step is two updates and one gradient, with no value read by the host.
    Before the last step, the gradient is `gradient_alone`'s, where it is given.

    Returns:
        The end point, and its momentum of shape (S, D).
    """
    step_size = parameters.step_size
    drift = step_size * parameters.inverse_mass_matrix
    x = state.position
    p = torch.addcmul(momentum, step_size, state.gradient, value=-0.5)
    for _ in range(num_steps - 1):
        x = torch.addcmul(x, drift, p)
        gradient = value_and_grad(x)[1] if gradient_alone is None else gradient_alone(x)
        p = torch.addcmul(p, step_size, gradient, value=-1)
    x = torch.addcmul(x, drift, p)
    energy, gradient = value_and_grad(x)
    p = torch.addcmul(p, step_size, gradient, value=-0.5)
    return State(x, energy, gradient, state.iteration), p


def van_der_corput(index: int) -> float:
    """The base-2 radical inverse of `index` + 1, in (0, 1): evenly spread over every stretch of indices."""
    value, scale, n = 0.0, 0.5, index + 1
    while n:
        value += scale * (n & 1)
        n >>= 1
        scale /= 2
    return value
