"""Microcanonical Langevin Monte Carlo, unadjusted."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from vaebench.energies.base import BaseEnergyFunction
from vaebench.mcmc.adaptation import Adaptation, WarmUp
from vaebench.mcmc.kernels.kernel import Kernel, all_finite, check_setting, number, select
from vaebench.mcmc.microcanonical import MicrocanonicalAdaptation
from vaebench.mcmc.state import Draw, Info, Parameters, State
from vaebench.schedules import Schedule

KICK = 0.1931833275037836  # steps; McLachlan's second-order integrator of minimal error


@dataclass(frozen=True)
class DirectionState(State):
    """With the direction in which each chain moves.

    Attributes:
        direction: A unit vector, in the units of the mass matrix, shape (S, D).
    """

    direction: Tensor = field(kw_only=True)


@dataclass(frozen=True)
class MCLMCKernel(Kernel):
    r"""Microcanonical Langevin Monte Carlo: a particle of constant speed that the gradient steers.

    .. math:: \dot x = u, \quad \dot u = -\frac{(I - u u^\top) \nabla U(x)}{T (D - 1)}, \quad |u| = 1, \quad
        u \leftarrow \frac{u + \nu \xi}{|u + \nu \xi|}, \quad \nu = \sqrt{(e^{2 \epsilon / L} - 1) / D}

    A step of McLachlan's integrator costs two gradients. Nothing is accepted or rejected: the energy error of a step,
    U / T + (D - 1) log of the speed that the gradient would have given, causes the bias, and is what a warm-up tunes. A
    chain whose next energy is not finite stays where it is, reverses its direction, and is counted as divergent.

    References:
        Microcanonical Hamiltonian Monte Carlo (Robnik, De Luca, Silverstein & Seljak, 2023),
        https://arxiv.org/abs/2212.08549
        Fluctuation without dissipation: microcanonical Langevin Monte Carlo (Robnik & Seljak, 2024),
        https://arxiv.org/abs/2303.18221
    Args:
        length: L, the distance after which a direction is forgotten, > 0, in the units of the step size; a warm-up
            finds one of its own.
    """

    is_exact: ClassVar[bool] = False
    is_metropolised: ClassVar[bool] = False
    is_reversible: ClassVar[bool] = False
    min_dims: ClassVar[int] = 2
    states: ClassVar[tuple[type[State], ...]] = (DirectionState,)
    caveat: ClassVar[str | None] = (
        "Unadjusted microcanonical draws have a bias that grows with sampler.step_size and that these numbers do not "
        "show; compare with half the step size, or choose sampler=adjusted_mclmc."
    )
    length: float | Schedule = 1.0

    def __post_init__(self) -> None:
        check_setting("length", self.length, above=0)

    @property
    def can_be_tuned(self) -> bool:
        """By the variance of the energy error."""
        return True

    def adaptation(
        self, state: State, energy: BaseEnergyFunction, parameters: Parameters, warm_up: WarmUp, draw: Draw
    ) -> Adaptation:
        """Begin a warm-up in three parts."""
        return MicrocanonicalAdaptation(state, parameters, warm_up, follows_length=True)

    @torch.no_grad()
    def step(self, state: State, energy: BaseEnergyFunction, parameters: Parameters, draw: Draw) -> tuple[State, Info]:
        """Forget a part of the direction, and make one step, at the cost of two gradients."""
        u = state.direction if isinstance(state, DirectionState) else unit(draw.normal(state.position))
        length = number(self.length) if parameters.length is None else parameters.length
        nu = (torch.expm1(2 * parameters.step_size / length) / u.shape[1]).sqrt()
        u = unit(u + nu * draw.normal(u))
        proposal, end, kinetic = isokinetic(energy, state, u, parameters, 1)
        change = (proposal.energy - state.energy) / parameters.chain_temperature + kinetic
        is_finite = all_finite(change, proposal.gradient)
        moved = select(is_finite, proposal, state)
        info = Info(
            acceptance_probability=is_finite.to(change.dtype),
            is_accepted=is_finite,
            is_divergent=~is_finite,
            energy_change=change,
            total_energy=moved.energy,
            num_gradients=torch.full_like(is_finite, 2, dtype=torch.int64),
        )
        u = torch.where(is_finite.unsqueeze(-1), end, -u)
        return DirectionState(**vars(moved), direction=u), info


def isokinetic(
    energy: BaseEnergyFunction, state: State, direction: Tensor, parameters: Parameters, num_steps: int
) -> tuple[State, Tensor, Tensor]:
    """Integrate the microcanonical equations by McLachlan's scheme, two gradients a step.

    Returns:
        The end point, its direction of shape (S, D), and the change of (D - 1) log speed along the way, shape (S,):
        added to that of U / T it is the energy error.
    """
    step_size, scale = parameters.step_size, parameters.inverse_mass_matrix.sqrt()
    half, whitened = 0.5 * step_size * scale, scale / parameters.temperature
    x, value, gradient, u = state.position, state.energy, state.gradient, direction
    kinetic = torch.zeros_like(value)
    for _ in range(num_steps):
        u, change = kick(u, whitened * gradient, KICK * step_size)
        kinetic = kinetic + change
        x = x + half * u
        u, change = kick(u, whitened * energy.gradient(x), (1 - 2 * KICK) * step_size)
        kinetic = kinetic + change
        x = x + half * u
        value, gradient = energy.value_and_grad(x)
        u, change = kick(u, whitened * gradient, KICK * step_size)
        kinetic = kinetic + change
    return State(x, value, gradient, state.iteration), u, kinetic


def kick(direction: Tensor, gradient: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    r"""Turn unit vectors down the gradient, as the equations do exactly where it is constant.

    With e = -g / |g| and delta = time |g| / (D - 1),

    .. math:: u' = \frac{u + (\sinh \delta + (e \cdot u)(\cosh \delta - 1)) e}{\cosh \delta + (e \cdot u) \sinh \delta}

    Returns:
        u', shape (S, D), and (D - 1) times the logarithm of the denominator, shape (S,).
    """
    others = direction.shape[1] - 1
    norm = gradient.norm(dim=-1, keepdim=True)
    e = -gradient / norm.clamp(min=torch.finfo(norm.dtype).tiny)
    delta = time * norm / others
    cosine = (e * direction).sum(-1, keepdim=True)
    zeta = torch.exp(-delta)  # all terms are divided by e^delta / 2, which could overflow
    turned = e * ((1 - zeta) * (1 + zeta + cosine * (1 - zeta))) + 2 * zeta * direction
    speed = 1 + cosine + (1 - cosine) * zeta.square()
    return unit(turned), (others * (delta - math.log(2) + speed.log())).squeeze(-1)


def unit(x: Tensor) -> Tensor:
    """Divide rows by their length, shape (S, D)."""
    return x / x.norm(dim=-1, keepdim=True)
