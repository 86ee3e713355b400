"""Warm-up: a step size by dual averaging, a diagonal mass matrix from growing windows, both pooled over chains."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from vaebench.energies.base import BaseEnergyFunction
from vaebench.mcmc.state import Draw, Info, Parameters, State
from vaebench.mcmc.whitening import MassMatrix, find_whitening

MIN_FOR_MASS = 20  # transitions; in a shorter warm-up the mass matrix is not adapted, as in Stan


class TunableKernel(Protocol):
    """A kernel, as far as a search for its step size needs it."""

    def step(self, state: Any, energy: BaseEnergyFunction, parameters: Parameters, draw: Draw) -> tuple[Any, Info]:
        """Make one transition in every chain."""
        ...


@dataclass(frozen=True)
class WarmUp:
    """What a warm-up is asked to do.

    Attributes:
        num_transitions: How long it is, >= 1.
        target_acceptance: What to tune for, in (0, 1); None where a kernel has no acceptance rate to tune for.
        mass_matrix: What a warm-up in windows learns.
    """

    num_transitions: int
    target_acceptance: float | None = None
    mass_matrix: MassMatrix = "diagonal"


class Adaptation(ABC):
    """Learns the parameters of a kernel from its transitions, and freezes them after the last of its warm-up."""

    @property
    @abstractmethod
    def parameters(self) -> Parameters:
        """What the next transition uses; after warm-up always the same object."""

    @abstractmethod
    def update(self, state: State, info: Info) -> None:
        """Learn from one transition; does nothing after warm-up.

        Args:
            state: Where the chains are now.
            info: What happened.
        """


@dataclass
class DualAveraging:
    r"""Nesterov's dual averaging of the log step size (Hoffman & Gelman, 2014, section 3.2).

    .. math:: \log \epsilon_{t+1} = \mu - \frac{\sqrt t}{\gamma} \frac{1}{t + t_0} \sum_{i \le t} (\delta - \alpha_i)

    averaged with weights :math:`t^{-\kappa}`. Everything is a tensor, of no dimension or one value per chain: the host
    reads nothing.

    References:
        The No-U-Turn Sampler (Hoffman & Gelman, 2014), https://arxiv.org/abs/1111.4246
    Deviations:
        mu is log epsilon_0 and gamma 0.2, where the paper has log 10 epsilon_0 and 0.05. Those are made for the
        acceptance of a single chain; it swings so widely under them that after 50 transitions the averaged step still
        accepts 0.05 to 0.25 more than it should. A rate pooled over chains has little noise, and settles within 0.05.
    Args:
        step_size: Where to start, positive.
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
        """Learn from acceptance probabilities, of the shape of the step size: each chain's, or their mean."""
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
        if end + window > num_warmup - last:  # no room for the next window: this one takes the rest
            end = num_warmup - last
        ends.append(end)
    return first, ends


class WindowAdaptation(Adaptation):
    r"""Stan's warm-up with statistics pooled over the chains that have arrived.

    The mass matrix is :math:`M^{-1} = \frac{n}{n+5} \mathrm{Var} + 10^{-3} \frac{5}{n+5}`, the variance being that of
    positions in a window about their common mean. After the last transition nothing changes any more.

    Chains on the way from a wide start do not follow the distribution: pooled with the others they would set its
    scales, and move with steps that suit the others. So every chain begins alone, with a step size of its own. At the
    end of each window, chains whose energies are those of the lowest quarter have arrived (`have_arrived`): their
    positions are pooled, and they share a step size and a mass matrix, which are what the draws are made with. The
    others go on alone, with a mass matrix of their own, until they arrive.

    A dense or low-rank mass matrix is a linear map (`Parameters.whitening`), and M is that in its coordinates: I for
    chains that have arrived. The caller moves chains to the new coordinates.

    References:
        Stan Reference Manual, section HMC Algorithm Parameters, https://mc-stan.org/docs/reference-manual/mcmc.html
    Args:
        parameters: Where to start.
        warm_up: Its length, and the acceptance rate to tune for.
    """

    def __init__(self, parameters: Parameters, warm_up: WarmUp) -> None:
        assert warm_up.target_acceptance is not None
        self._first_parameters, self._target = parameters, warm_up.target_acceptance
        self._num_warmup = warm_up.num_transitions
        self._first, self._ends = window_ends(self._num_warmup)
        self._shared_step = DualAveraging(parameters.step_size, self._target)
        self._shared_mass = parameters.inverse_mass_matrix
        self._own_step: DualAveraging | None = None
        self._own_mass = self._shared_mass
        self._is_shared: Tensor | None = None  # (S, 1): chains that have arrived
        self._window: Window | None = None
        self._kind, self._whitening = warm_up.mass_matrix, parameters.whitening
        self._seen: list[Tensor] = []
        self._frozen: Parameters | None = None
        self._t = 0

    @property
    def parameters(self) -> Parameters:
        """What the next transition uses: the averaged step size once warm-up is over."""
        if self._frozen is not None:
            return self._frozen
        step_size, mass = self._shared_step.step_size, self._shared_mass
        if self._t >= self._num_warmup:
            self._frozen = replace(
                self._first_parameters,
                step_size=self._shared_step.average,
                inverse_mass_matrix=mass,
                whitening=self._whitening,
            )
            return self._frozen
        if self._own_step is not None:
            step_size, mass = self._own_step.step_size, self._own_mass
            if self._is_shared is not None:
                step_size = torch.where(self._is_shared, self._shared_step.step_size, step_size)
                mass = torch.where(self._is_shared, self._shared_mass, mass)
        return replace(self._first_parameters, step_size=step_size, inverse_mass_matrix=mass, whitening=self._whitening)

    def update(self, state: State, info: Info) -> None:
        """Learn from one transition; does nothing after warm-up."""
        if self._t >= self._num_warmup:
            return
        self._t += 1
        rates = info.acceptance_probability.unsqueeze(-1)
        if not self._ends:  # warm-up is too short for windows
            self._shared_step.update(rates.mean())
            return
        if self._own_step is None:
            start = self._first_parameters.step_size.expand_as(rates)
            self._own_step = DualAveraging(start, self._target, gamma=0.05)
            self._own_mass = self._shared_mass.expand_as(state.position)
        self._own_step.update(rates)
        if self._is_shared is not None:
            self._shared_step.update((rates * self._is_shared).sum() / self._is_shared.sum())
        if self._first < self._t <= self._ends[-1]:
            self._window = Window.like(state) if self._window is None else self._window
            self._window.update(state)
            if self._kind != "diagonal":
                x = state.position if self._whitening is None else self._whitening.to_position(state.position)
                self._seen.append(x.double())
        if self._t in self._ends:
            self._end_window(rates)

    def _end_window(self, rates: Tensor) -> None:
        assert self._window is not None
        assert self._own_step is not None
        has_arrived = have_arrived(*self._window.energy_moments()).unsqueeze(-1)
        own = self._own_step.average
        begin = own if self._is_shared is None else torch.where(self._is_shared, self._shared_step.average, own)
        self._shared_step.restart(torch.exp((begin.log() * has_arrived).sum() / has_arrived.sum()))
        if self._kind == "diagonal":
            self._shared_mass = regularised(*self._window.pooled(has_arrived), like=self._shared_mass)
            self._own_mass = regularised(*self._window.own(), like=self._shared_mass)
        else:
            x, self._seen = torch.stack(self._seen), []
            pooled = x[:, has_arrived.squeeze(-1)].flatten(0, 1)
            self._whitening = find_whitening(pooled, self._kind, self._shared_mass)
            own = self._whitening.from_position(x.to(self._shared_mass)).double().var(0)
            self._shared_mass = torch.ones_like(self._shared_mass)
            self._own_mass = regularised(own, len(x), like=self._shared_mass)
        self._own_step.restart(begin)
        self._is_shared = has_arrived
        self._window = None


def have_arrived(mean: Tensor, variance: Tensor) -> Tensor:
    """Say which chains have the energies of the lowest quarter, shape (S,), bool; at least a quarter has.

    A chain counts if its mean energy is at most five standard deviations of the energy above the mean of the chain at
    the first quartile; the deviation is the median over the chains up to there. In equilibrium all of them do.

    Args:
        mean: Of each chain's energy in a window, nats, shape (S,).
        variance: Of the same, shape (S,).
    """
    order = mean.argsort()
    quarter = order[: max(1, math.ceil(len(mean) / 4))]
    spread = (variance[quarter].median() + mean[quarter].var(correction=0)).sqrt()
    return mean <= mean[quarter[-1]] + 5 * spread


class Window:
    """Running means and sums of squares of each chain's positions and energy, in float64 by Welford's sums.

    Args:
        position: Gives shape (S, D) and device.
    """

    def __init__(self, position: Tensor) -> None:
        self.n = 0
        self._mean = torch.zeros(position.shape[0], position.shape[1] + 1, dtype=torch.float64, device=position.device)
        self._squares = torch.zeros_like(self._mean)

    @classmethod
    def like(cls, state: State) -> Window:
        """Return an empty window for these chains."""
        return cls(state.position)

    def update(self, state: State) -> None:
        """Add the present positions and energies."""
        values = torch.cat([state.position, state.energy.unsqueeze(-1)], -1).double()
        self.n += 1
        delta = values - self._mean
        self._mean = self._mean + delta / self.n
        self._squares = self._squares + delta * (values - self._mean)

    def energy_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each chain's energy, nats, each of shape (S,)."""
        return self._mean[:, -1], self._squares[:, -1] / self.n

    def own(self) -> tuple[Tensor, int]:
        """Variance of each chain about its own mean, shape (S, D), and the number of positions behind it."""
        return self._squares[:, :-1] / max(self.n - 1, 1), self.n

    def pooled(self, which: Tensor) -> tuple[Tensor, int]:
        """Variance over some chains about their common mean, shape (D,), and the number of positions behind it.

        Args:
            which: Shape (S, 1), bool.
        """
        weights, means = which.double(), self._mean[:, :-1]
        count = int(which.sum())
        common = (weights * means).sum(0) / count
        squares = (weights * (self._squares[:, :-1] + self.n * (means - common).square())).sum(0)
        return squares / max(count * self.n - 1, 1), count * self.n


def regularised(variance: Tensor, n: int, like: Tensor) -> Tensor:
    """A variance from n positions, shrunk towards 1e-3 as Stan does; shape kept, dtype that of `like`."""
    return (variance * (n / (n + 5)) + 1e-3 * (5 / (n + 5))).to(like.dtype)


def reasonable_step_size(
    kernel: TunableKernel, state: State, energy: BaseEnergyFunction, parameters: Parameters, draw: Draw
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
        length = None if parameters.length is None else parameters.length * (step_size / parameters.step_size)
        _, info = kernel.step(state, energy, replace(parameters, step_size=step_size, length=length), draw)
        sign = 1 if float(info.acceptance_probability.mean()) > 0.8 else -1
        if direction and sign != direction:
            return step_size
        direction = sign
        step_size = step_size * 2.0**direction
    raise ValueError(
        "expected an acceptance rate that falls as the step size grows, found none between 1e-10 and 1e10; is the "
        "target's density integrable, and its gradient right?"
    )
