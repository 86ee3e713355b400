"""The warm-up of microcanonical Monte Carlo: step size, scales, and the length after which a direction is forgotten."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaebench.mcmc.adaptation import Adaptation, DualAveraging, WarmUp, Window
from vaebench.mcmc.ess import effective_sample_size

if TYPE_CHECKING:
    from vaebench.mcmc.state import Info, Parameters, State

ENERGY_VARIANCE = 5e-4  # wanted variance of the energy error of a step, per dimension
MEMORY = 149 / 151  # decay of the averages behind the step size: 150 transitions
TRUST = 1.5
LENGTH_FACTOR = 0.4  # autocorrelation lengths
MAX_STEPS = 50  # per trajectory, until scales are known


class StepByEnergyError:
    r"""A step size at which the energy error of a step has a given variance per dimension.

    The variance grows with the sixth power of the step size: each chain's error predicts the step size that would have
    been right, and predictions are averaged, those from errors far off counting less:

    .. math:: \xi = \frac{\Delta E^2}{D \sigma^2}, \quad w = e^{-\frac12 (\log \xi / (6 \cdot 1.5))^2}, \quad
        \epsilon = \Big( \frac{\sum w \xi / \epsilon^6}{\sum w} \Big)^{-1/6}

    References:
        Microcanonical Hamiltonian Monte Carlo (Robnik et al., 2023), https://arxiv.org/abs/2212.08549, appendix, as in
        its authors' implementation; the constants are theirs.
    Args:
        step_size: Where to start, positive.
        num_dims: D.
    """

    def __init__(self, step_size: Tensor, num_dims: int) -> None:
        self.step_size, self._num_dims = step_size, num_dims
        self._sum = self._weight = torch.zeros_like(step_size)
        self._largest = torch.full_like(step_size, math.inf)

    def learn(self, info: Info) -> None:
        """Learn from the energy errors of all chains; where some are not finite, no step becomes so long again."""
        is_finite = info.energy_change.isfinite()
        limit = torch.where(is_finite.all(), math.inf, 0.8 * self.step_size)
        self._largest = torch.minimum(self._largest, limit)
        xi = info.energy_change.where(is_finite, 0.0).square() / (self._num_dims * ENERGY_VARIANCE) + 1e-8
        weight = torch.exp(-0.5 * (xi.log() / (6 * TRUST)).square()) * is_finite
        self._sum = MEMORY * self._sum + (weight * xi).mean() / self.step_size**6
        self._weight = MEMORY * self._weight + weight.mean()
        found = (self._sum / self._weight) ** (-1 / 6)
        self.step_size = torch.minimum(torch.where(found.isfinite(), found, self.step_size), self._largest)

    @property
    def average(self) -> Tensor:
        """The step size, a scalar; it is an average already."""
        return self.step_size


class StepByAcceptance(DualAveraging):
    """A step size at which a given share of proposals is accepted, pooled over chains."""

    def learn(self, info: Info) -> None:
        """Learn from one transition."""
        self.update(info.acceptance_probability.mean())


class MicrocanonicalAdaptation(Adaptation):
    r"""Three parts of equal length, with statistics pooled over chains.

    The first part tunes the step size alone. The second collects positions, whose variances become M^-1; in the units
    of M, L is then sqrt(D). The third tunes the step size again; for the unadjusted kernel the autocorrelation times
    tau of this part, in transitions, give L = 0.4 epsilon mean(tau).

    References:
        Microcanonical Hamiltonian Monte Carlo (Robnik et al., 2023), https://arxiv.org/abs/2212.08549
        Metropolis adjusted microcanonical Hamiltonian Monte Carlo (Robnik, Cohn-Gordon & Seljak, 2025),
        https://arxiv.org/abs/2503.01707
    Deviations:
        Theirs is for one chain. L of the adjusted kernel stays sqrt(D).
    Args:
        state: Where the chains start.
        parameters: Where to begin: for the adjusted kernel, with a step size that suits.
        warm_up: How long it is, and the acceptance rate to tune for, None for the unadjusted kernel.
        follows_length: Whether L is set by autocorrelation times.
    """

    def __init__(self, state: State, parameters: Parameters, warm_up: WarmUp, *, follows_length: bool) -> None:
        self._num_dims, self._num_warmup = state.position.shape[1], warm_up.num_transitions
        self._target, self._follows_length = warm_up.target_acceptance, follows_length
        self._t, self._ends = 0, (self._num_warmup // 3, 2 * self._num_warmup // 3)
        first = parameters.step_size if self._target is not None else parameters.step_size * 0 + scale_of(state)
        self._step = self._new_step(first)
        self._mass, self._length = parameters.inverse_mass_matrix, first * 0 + math.sqrt(self._num_dims)
        self._window: Window | None = None
        self._seen: list[Tensor] = []
        self._parameters = replace(parameters, step_size=first, length=self._limited_length(first))

    @property
    def parameters(self) -> Parameters:
        """What all chains use."""
        return self._parameters

    def update(self, state: State, info: Info) -> None:
        """Learn from one transition."""
        if self._t >= self._num_warmup:
            return
        self._t += 1
        self._step.learn(info)
        first, second = self._ends
        if first < self._t <= second:
            self._window = Window.like(state) if self._window is None else self._window
            self._window.update(state)
            if self._t == second and self._num_warmup >= 20:
                self._set_scales()
        if self._t > second and self._follows_length:
            self._seen.append(state.position.double().cpu())
        step_size = self._step.step_size
        if self._t == self._num_warmup:
            step_size = self._step.average
            if len(self._seen) >= 8:
                tau = len(self._seen) * len(state.position) / effective_sample_size(torch.stack(self._seen))
                self._length = LENGTH_FACTOR * step_size * tau.nanmean().to(step_size)
            self._seen = []
        self._parameters = replace(
            self._parameters,
            step_size=step_size,
            inverse_mass_matrix=self._mass,
            length=self._limited_length(step_size) if self._t <= second else self._length,
        )

    def _set_scales(self) -> None:
        assert self._window is not None
        everyone = torch.ones(len(self._window.energy_moments()[0]), 1, dtype=torch.bool, device=self._mass.device)
        variance, _ = self._window.pooled(everyone)
        before = self._mass
        self._mass = variance.to(before).clamp(min=torch.finfo(before.dtype).tiny ** 0.5)
        change = (before / self._mass).sqrt().log().mean().exp()  # the same step in the new units, on average
        self._step = self._new_step(self._step.average * change)
        self._window = None

    def _new_step(self, step_size: Tensor) -> StepByEnergyError | StepByAcceptance:
        if self._target is None:
            return StepByEnergyError(step_size, self._num_dims)
        return StepByAcceptance(step_size, self._target)

    def _limited_length(self, step_size: Tensor) -> Tensor:
        return torch.minimum(self._length, MAX_STEPS * step_size)


def scale_of(state: State) -> Tensor:
    """A first step: a quarter of sqrt(D), or what the steepest gradient can bear."""
    others = state.position.shape[1] - 1
    steepest = state.gradient.norm(dim=-1).max()
    return torch.minimum(
        steepest.new_tensor(0.25 * math.sqrt(others + 1)), others / steepest.clamp(min=torch.finfo(steepest.dtype).tiny)
    )
