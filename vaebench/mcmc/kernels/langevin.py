"""Unadjusted Langevin dynamics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vaebench.energies.base import BaseEnergyFunction
from vaebench.mcmc.kernels.kernel import Caller, CompilableKernel, all_finite, select
from vaebench.mcmc.state import Draw, Info, Parameters, State


@dataclass(frozen=True)
class LangevinKernel(CompilableKernel):
    r"""The unadjusted Langevin algorithm: a gradient step and noise, with nothing accepted or rejected.

    .. math:: x' = x - \eta M^{-1} \nabla U(x) + \sqrt{2 \eta T M^{-1}} \, \xi, \quad \xi \sim N(0, I)

    Its stationary density differs from exp(-U / T) by a bias of order eta: on a Gaussian of precision k the variance is
    T / (k (1 - eta k / 2)), and beyond eta k = 2 it diverges. A chain whose next energy is not finite stays where it is
    and is counted as divergent.

    References:
        Exponential convergence of Langevin distributions and their discrete approximations (Roberts & Tweedie, 1996),
        https://doi.org/10.2307/3318418
        Theoretical guarantees for approximate sampling from smooth and log-concave densities (Dalalyan, 2017),
        https://arxiv.org/abs/1412.7392
    """

    is_exact: ClassVar[bool] = False
    is_metropolised: ClassVar[bool] = False
    caveat: ClassVar[str | None] = (
        "Unadjusted Langevin draws have a bias that grows with sampler.step_size and that these numbers do not show; "
        "compare with half the step size, or choose sampler=mala."
    )

    @torch.no_grad()
    def step_in_pieces(
        self, call: Caller, state: State, energy: BaseEnergyFunction, parameters: Parameters, draw: Draw
    ) -> tuple[State, Info]:
        """Draw noise and move."""
        return call(move, state, energy, parameters, draw.normal(state.position))


def move(state: State, energy: BaseEnergyFunction, parameters: Parameters, noise: Tensor) -> tuple[State, Info]:
    """Move every chain once, at the cost of one gradient.

    Args:
        state: Where the chains are.
        energy: What to draw from.
        parameters: Step size, mass and temperature.
        noise: From N(0, 1), shape (S, D).
    """
    rate = parameters.step_size * parameters.inverse_mass_matrix
    scale = (rate * (2 * parameters.temperature)).sqrt()
    x = torch.addcmul(state.position, rate, state.gradient, value=-1).addcmul_(noise, scale)
    value, gradient = energy.value_and_grad(x)
    is_finite = all_finite(value, gradient)
    moved = select(is_finite, State(x, value, gradient, state.iteration), state)
    info = Info(
        acceptance_probability=is_finite.to(value.dtype),
        is_accepted=is_finite,
        is_divergent=~is_finite,
        energy_change=(value - state.energy) / parameters.chain_temperature,
        total_energy=moved.energy,
        num_gradients=torch.ones_like(is_finite, dtype=torch.int64),
    )
    return moved, info
