r"""Annealed importance sampling: from a density that can be drawn from to another, by many small steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vaebench.energies.base import BaseEnergyFunction
from vaebench.mcmc.kernels.kernel import Kernel
from vaebench.mcmc.state import Draw, Parameters, State
from vaebench.messages import check_range

SHARPNESS = 4.0  # of the sigmoid schedule
GAIN = 0.5  # pilot: added to the log step size for an acceptance rate that is too high by 1
REPEATS = 6  # pilot: transitions at each temperature; the later half is averaged

LogDensity = Callable[[Tensor], Tensor]
"""(S, D) -> (S,), nats."""
ScheduleName = Literal["sigmoid", "linear"]


def inverse_temperatures(num_temperatures: int, schedule: ScheduleName = "sigmoid") -> list[float]:
    r"""Return beta_0 = 0 to beta_T = 1.

    .. math:: \beta_t = \frac{s_t - s_0}{s_T - s_0}, \quad s_t = \sigma(4 (2 t / T - 1))

    Args:
        num_temperatures: T, >= 2.
        schedule: "sigmoid" as above, or "linear", t / T.

    >>> [round(beta, 3) for beta in inverse_temperatures(4)]
    [0.0, 0.105, 0.5, 0.895, 1.0]
    """
    check_range("num_temperatures", num_temperatures, at_least=2, whole=True)
    times = [t / num_temperatures for t in range(num_temperatures + 1)]
    if schedule == "linear":
        return times
    if schedule != "sigmoid":
        raise ValueError(f"schedule must be sigmoid or linear; got '{schedule}'")
    values = [1 / (1 + math.exp(-SHARPNESS * (2 * time - 1))) for time in times]
    return [(value - values[0]) / (values[-1] - values[0]) for value in values]


class AnnealedEnergy(BaseEnergyFunction):
    """U(z) = -log p_0(z) - beta log f(z): p_0 at beta = 0, what f makes of it at beta = 1.

    Attributes:
        beta: The inverse temperature, in [0, 1].

    Args:
        log_base: log p_0, (S, D) -> (S,).
        log_factor: log f, (S, D) -> (S,).
    """

    def __init__(self, log_base: LogDensity, log_factor: LogDensity) -> None:
        super().__init__()
        self.log_base, self.log_factor = log_base, log_factor
        self.beta = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """U in nats, (S, D) -> (S,)."""
        return -self.log_base(x) - self.beta * self.log_factor(x)

    def state(self, x: Tensor, iteration: int = 0) -> tuple[State, Tensor]:
        """Evaluate at (S, D): the state of chains there, and log f in nats, shape (S,)."""
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            log_factor = self.log_factor(x)
            energy = -self.log_base(x) - self.beta * log_factor
            (gradient,) = torch.autograd.grad(energy.sum(), x)
        return State(x.detach(), energy.detach(), gradient, iteration), log_factor.detach()


@dataclass(frozen=True)
class StepSizes:
    """Step sizes that a pilot found, frozen.

    Attributes:
        log_steps: Logarithms at the pilot's temperatures, which follow the same schedule, shape (P, G): one for each
            group of chains.
        acceptance: The acceptance rate there, shape (P, G).
    """

    log_steps: Tensor
    acceptance: Tensor

    def at(self, time: float) -> Tensor:
        """Step sizes at a time t / T in [0, 1], shape (G,)."""
        place = time * len(self.log_steps) - 1
        low = min(max(math.floor(place), 0), len(self.log_steps) - 1)
        high = min(low + 1, len(self.log_steps) - 1)
        return torch.lerp(self.log_steps[low], self.log_steps[high], min(max(place - low, 0.0), 1.0)).exp()


def tune(
    kernel: Kernel,
    energy: AnnealedEnergy,
    start: Tensor,
    num_groups: int,
    *,
    num_temperatures: int = 50,
    schedule: ScheduleName = "sigmoid",
    target_acceptance: float = 0.65,
    draw: Draw | None = None,
) -> StepSizes:
    """Run a pilot from p_0, and find for each group of chains a step size at each of its temperatures.

    The weights of chains whose step sizes follow their own past would be biased; so these chains are thrown away.

    Args:
        kernel: The transition.
        energy: What is annealed.
        start: Draws from p_0, shape (S, D); row s belongs to group s mod G.
        num_groups: G.
        num_temperatures: P.
        schedule: As for `inverse_temperatures`.
        target_acceptance: In (0, 1).
        draw: Source of all randomness.
    """
    draw = draw or Draw()
    log_step = start.new_full((num_groups,), math.log(0.5))
    found, rates, position = [], [], start
    for j, beta in enumerate(inverse_temperatures(num_temperatures, schedule)[1:]):
        energy.beta = beta
        state, _ = energy.state(position, j * REPEATS)
        kept: list[tuple[Tensor, Tensor]] = []
        for _ in range(REPEATS):
            state, info = kernel.step(state, energy, _parameters(log_step.exp(), start), draw)
            rate = info.acceptance_probability.view(-1, num_groups).mean(0)
            kept.append((log_step, rate))
            log_step = log_step + GAIN * (rate - target_acceptance)
        position = state.position
        later = kept[REPEATS // 2 :]
        found.append(torch.stack([step for step, _ in later]).mean(0))
        rates.append(torch.stack([rate for _, rate in later]).mean(0))
    return StepSizes(torch.stack(found), torch.stack(rates))


def anneal(
    kernel: Kernel,
    energy: AnnealedEnergy,
    start: Tensor,
    step_sizes: StepSizes,
    betas: Sequence[float],
    *,
    draw: Draw | None = None,
    advance: Callable[[], object] = lambda: None,
) -> tuple[Tensor, Tensor]:
    r"""Take chains from one density to the other.

    .. math:: \log w = \sum_t (\beta_{t+1} - \beta_t) \log f(z_t), \quad z_{t+1} \sim T_{\beta_{t+1}}(\cdot | z_t)

    Upwards, from draws of p_0, E[w] = E_{p_0}[f] =: Z, so that log Z >= E[log w]. Downwards, from exact draws at beta =
    1, E[w] = 1 / Z, so that log Z <= -E[log w].

    Args:
        kernel: The transition, which must leave its density invariant.
        energy: What is annealed.
        start: Exact draws at betas[0], shape (S, D); row s belongs to group s mod G.
        step_sizes: Frozen, for G groups.
        betas: The inverse temperatures in the order in which they are passed: 0 to 1, or 1 to 0.
        draw: Source of all randomness.
        advance: Called after each temperature.

    Returns:
        log w, float64, shape (S,), and the mean acceptance rate of each group, shape (G,).
    """
    draw = draw or Draw()
    last = len(betas) - 1
    is_upward = betas[0] < betas[-1]
    position, log_w = start, torch.zeros(len(start), dtype=torch.float64, device=start.device)
    rates = torch.zeros(step_sizes.log_steps.shape[1], dtype=torch.float64, device=start.device)
    for t in range(last):
        energy.beta = betas[t + 1]
        state, log_factor = energy.state(position, t)
        log_w += (betas[t + 1] - betas[t]) * log_factor.double()
        if t + 1 < last:  # after the last temperature no weight changes
            time = (t + 1 if is_upward else last - t - 1) / last
            state, info = kernel.step(state, energy, _parameters(step_sizes.at(time), start), draw)
            position = state.position
            rates += info.acceptance_probability.view(-1, len(rates)).mean(0) / (last - 1)
        advance()
    return log_w, rates


def _parameters(step_sizes: Tensor, like: Tensor) -> Parameters:
    """Give each group's step size to its chains."""
    chains = step_sizes.repeat(len(like) // len(step_sizes)).unsqueeze(-1)
    return Parameters(chains, torch.ones_like(like[0]))
