"""Warm-up: a step size by dual averaging, a diagonal mass matrix from growing windows, both pooled over chains."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vaebench.energies.base import BaseEnergyFunction
from vaebench.mcmc.kernels.kernel import Draw, Info, Kernel, Parameters, State

MIN_FOR_MASS = 20  # transitions; Stan, too, leaves the mass matrix alone in a shorter warm-up


@dataclass
class DualAveraging:
    r"""Nesterov's dual averaging of the log step size (Hoffman & Gelman, 2014, section 3.2).

    .. math:: \log \epsilon_{t+1} = \mu - \frac{\sqrt t}{\gamma} \frac{1}{t + t_0} \sum_{i \le t} (\delta - \alpha_i)

    averaged with weights :math:`t^{-\kappa}`. Everything is a tensor of no dimension: the host reads nothing.

    References:
        The No-U-Turn Sampler (Hoffman & Gelman, 2014), https://arxiv.org/abs/1111.4246
    Deviations:
        mu is log epsilon_0 and gamma 0.2, where the paper has log 10 epsilon_0 and 0.05. Those are made for the
        acceptance of a single chain; it swings so widely under them that after 50 transitions the averaged step still
        accepts 0.05 to 0.25 more than it should. A rate pooled over chains has little noise, and settles within 0.05.
    Args:
        step_size: Where to start, a positive scalar.
        target: The acceptance rate delta.
    """

    step_size: Tensor
    target: float
    gamma: float = 0.2
    t0: float = 10.0
    kappa: float = 0.75

    def __post_init__(self) -> None:
        self.restart(self.step_size)

    def restart(self, step_size: Tensor) -> None:
        """Begin again from `step_size`, as is needed when the mass matrix changed."""
        self.step_size = step_size
        self._mu = torch.log(step_size)
        self._error = torch.zeros_like(step_size)
        self._log_average = torch.zeros_like(step_size)
        self._t = 0

    def update(self, acceptance: Tensor) -> None:
        """Learn from the mean acceptance probability over chains, a scalar."""
        self._t += 1
        t = self._t
        self._error = self._error + (self.target - acceptance - self._error) / (t + self.t0)
        log_step = self._mu - math.sqrt(t) / self.gamma * self._error
        weight = t**-self.kappa
        self._log_average = weight * log_step + (1 - weight) * self._log_average
        self.step_size = log_step.exp()

    @property
    def average(self) -> Tensor:
        """The averaged step size, a scalar, for use after warm-up."""
        return self._log_average.exp() if self._t else self.step_size


def window_ends(num_warmup: int) -> tuple[int, list[int]]:
    """Stan's schedule: a first buffer, windows of doubling length, a last buffer.

    The buffers are 75 and 50 transitions and the first window 25; below their sum they shrink to 15 %, 10 % and 75 %.
    Because the windows pool all chains, 150 to 300 transitions do what Stan needs 1000 for.

    Returns:
        The length of the first buffer, and where each window ends: at each of these transitions the mass is set anew.

    >>> window_ends(1000)
    (75, [100, 150, 250, 450, 950])
    >>> window_ends(100)
    (15, [90])
    >>> window_ends(10)
    (10, [])
    """
    if num_warmup < MIN_FOR_MASS:
        return num_warmup, []
    first, window, last = 75, 25, 50
    if first + window + last > num_warmup:
        first, last = int(0.15 * num_warmup), int(0.1 * num_warmup)
        window = num_warmup - first - last
    ends, end = [], first
    while end < num_warmup - last:
        end += window
        window *= 2
        if end + window > num_warmup - last:  # the next one would not fit: this one takes the rest
            end = num_warmup - last
        ends.append(end)
    return first, ends


class WindowAdaptation:
    r"""Stan's warm-up with statistics pooled over chains.

    The mass matrix is :math:`M^{-1} = \frac{n}{n+5} \mathrm{Var} + 10^{-3} \frac{5}{n+5}`, the variance being that of
    all chains' positions in a window, about their common mean. After the last transition nothing changes any more.

    In the first buffer, while chains come from their starting points, the step size follows the harmonic mean of their
    acceptance probabilities: a single chain that is too far out to move at the others' step holds all of them back
    until it does, instead of staying there for ever.

    References:
        Stan Reference Manual, section HMC Algorithm Parameters, https://mc-stan.org/docs/reference-manual/mcmc.html
    Args:
        parameters: Where to start.
        num_warmup: Length of the warm-up, >= 1.
        target_acceptance: In (0, 1).
    """

    def __init__(self, parameters: Parameters, num_warmup: int, target_acceptance: float) -> None:
        self._averaging = DualAveraging(parameters.step_size, target_acceptance)
        self._first_parameters = parameters
        self._inverse_mass = parameters.inverse_mass_matrix
        self._num_warmup = num_warmup
        self._first, self._ends = window_ends(num_warmup)
        self._moments = PooledVariance(self._inverse_mass)
        self._t = 0

    @property
    def parameters(self) -> Parameters:
        """What the next transition uses: the averaged step size once warm-up is over."""
        is_over = self._t >= self._num_warmup
        step_size = self._averaging.average if is_over else self._averaging.step_size
        return replace(self._first_parameters, step_size=step_size, inverse_mass_matrix=self._inverse_mass)

    def update(self, state: State, info: Info) -> None:
        """Learn from one transition; does nothing after warm-up."""
        if self._t >= self._num_warmup:
            return
        self._t += 1
        rates = info.acceptance_probability
        is_settling = self._t <= self._first and self._ends
        self._averaging.update(harmonic_mean(rates) if is_settling else rates.mean())
        if self._ends and self._first < self._t <= self._ends[-1]:
            self._moments.update(state.position)
        if self._t in self._ends:
            self._inverse_mass = self._moments.regularised()
            self._moments = PooledVariance(self._inverse_mass)
            self._averaging.restart(self._averaging.average)


def harmonic_mean(rates: Tensor) -> Tensor:
    """The harmonic mean over chains, with rates below 1e-3 counted as that: a scalar near the worst chain's rate."""
    return 1 / (1 / rates.clamp(min=1e-3)).mean()


class PooledVariance:
    """Running variance per dimension over chains and transitions, in float64 by the parallel form of Welford's sums."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._n = 0
        self._mean = torch.zeros_like(like, dtype=torch.float64)
        self._sum_squares = torch.zeros_like(self._mean)

    def update(self, x: Tensor) -> None:
        """Add S positions, shape (S, D)."""
        x = x.double()
        n, total = x.shape[0], self._n + x.shape[0]
        mean = x.mean(0)
        delta = mean - self._mean
        self._sum_squares = self._sum_squares + (x - mean).square().sum(0) + delta.square() * (self._n * n / total)
        self._mean = self._mean + delta * (n / total)
        self._n = total

    def regularised(self) -> Tensor:
        """The variance, shrunk towards 1e-3 as Stan does, shape (D,)."""
        n = self._n
        variance = self._sum_squares / max(n - 1, 1)
        return (variance * (n / (n + 5)) + 1e-3 * (5 / (n + 5))).to(self._like.dtype)


def reasonable_step_size(
    kernel: Kernel, state: State, energy: BaseEnergyFunction, parameters: Parameters, draw: Draw
) -> Tensor:
    """Double or halve the step size until the acceptance rate over chains crosses 0.8 (Hoffman & Gelman, algorithm 4).

    Deviations:
        The whole transition is judged rather than one leapfrog step, so that any kernel can be tuned; the rate is the
        mean over chains.
    Returns:
        The first step size, a scalar, on the other side.
    Raises:
        ValueError: if no step size between 1e-10 and 1e10 crosses it; the energy cannot be one that integrates to 1.
    """
    step_size = parameters.step_size
    direction = 0
    while 1e-10 < float(step_size) < 1e10:
        _, info = kernel.step(state, energy, replace(parameters, step_size=step_size), draw)
        sign = 1 if float(info.acceptance_probability.mean()) > 0.8 else -1
        if direction and sign != direction:
            return step_size
        direction = sign
        step_size = step_size * 2.0**direction
    raise ValueError(
        "expected an acceptance rate that falls as the step size grows, found none between 1e-10 and 1e10; is the "
        "target's density integrable, and its gradient right?"
    )
