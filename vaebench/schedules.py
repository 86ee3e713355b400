r"""Schedules: numbers that change during training or sampling, as pure functions of the step.

One vocabulary for the weights of a loss (beta, capacity) and the parameters of a sampler (step size, temperature).
Step 0 has the first value; a sampler reads a schedule before it moves, and a model at the optimiser step of its batch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from vaebench.messages import NamedArguments, check_range


class Schedule(NamedArguments, ABC):
    """Base of the schedules: `schedule(step)` is the value at that step."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Return the value at `step`, counted from 0."""


@dataclass(frozen=True)
class ConstantScheduler(Schedule):
    """The same value at every step.

    Args:
        start_value: That value.
    """

    start_value: float = 1.0

    def __call__(self, step: int) -> float:
        """Return the constant."""
        return self.start_value


@dataclass(frozen=True)
class _Ramp(Schedule):
    start_value: float = 0.0
    end_value: float = 1.0
    n_steps: int = 10_000

    def __post_init__(self) -> None:
        check_range("n_steps", self.n_steps, at_least=0, whole=True)

    def __call__(self, step: int) -> float:
        """Return the start value at step 0, the end value from step `n_steps` on."""
        if step >= self.n_steps:
            return self.end_value
        return self.start_value + (self.end_value - self.start_value) * self._share(step / self.n_steps)

    @abstractmethod
    def _share(self, t: float) -> float:
        """Share of the way at t in [0, 1)."""


class LinearScheduler(_Ramp):
    r"""A straight line from `start_value` at step 0 to `end_value` at step `n_steps`, constant after it.

    .. math:: v(t) = v_0 + (v_1 - v_0) \min(1, t / n)

    Args:
        start_value: v_0.
        end_value: v_1.
        n_steps: n, >= 0; 0 has the end value at once.
    """

    def _share(self, t: float) -> float:
        return t


class CosineScheduler(_Ramp):
    r"""Half a cosine from `start_value` to `end_value`.

    .. math:: v(t) = v_1 + (v_0 - v_1) (1 + \cos(\pi t / n)) / 2

    References:
        SGDR: Stochastic Gradient Descent with Warm Restarts (Loshchilov and Hutter, 2017),
        https://arxiv.org/abs/1608.03983
    Args:
        start_value: v_0.
        end_value: v_1.
        n_steps: n, >= 0.
    """

    def _share(self, t: float) -> float:
        return 0.5 * (1 - math.cos(math.pi * t))


@dataclass(frozen=True)
class SigmoidScheduler(_Ramp):
    r"""A logistic curve from `start_value` to `end_value`, scaled to meet both ends exactly.

    With s(u) = 1 / (1 + e^-u) and r the sharpness,

    .. math:: v(t) = v_0 + (v_1 - v_0) \frac{s(r (2 t / n - 1)) - s(-r)}{s(r) - s(-r)}

    References:
        Generating Sentences from a Continuous Space (Bowman et al., 2016), https://arxiv.org/abs/1511.06349, for
        the sigmoid annealing of the rate; On the Quantitative Analysis of Decoder-Based Generative Models (Wu et al.,
        2017), https://arxiv.org/abs/1611.04273, for this rescaling and r = 4.
    Args:
        start_value: v_0.
        end_value: v_1.
        n_steps: n, >= 0.
        sharpness: r, > 0.
    """

    sharpness: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("sharpness", self.sharpness, above=0, below=math.inf)

    def _share(self, t: float) -> float:
        low, high = _logistic(-self.sharpness), _logistic(self.sharpness)
        return (_logistic(self.sharpness * (2 * t - 1)) - low) / (high - low)


@dataclass(frozen=True)
class CyclicalScheduler(Schedule):
    r"""Ramps that start again: linear over the first part of each period, constant over the rest.

    With tau = (t mod P) / P and ramp fraction R,

    .. math:: v(t) = v_0 + (v_1 - v_0) \min(1, \tau / R)

    and v_1 for good once `num_cycles` periods are over.

    References:
        Cyclical Annealing Schedule (Fu et al., 2019), https://arxiv.org/abs/1903.10145; R = 0.5 and four cycles are
        theirs.
    Args:
        start_value: v_0.
        end_value: v_1.
        period: P, steps, >= 1.
        ramp_fraction: R, in (0, 1].
        num_cycles: How many periods, >= 1; None goes on for ever.
    """

    start_value: float = 0.0
    end_value: float = 1.0
    period: int = 10_000
    ramp_fraction: float = 0.5
    num_cycles: int | None = 4

    def __post_init__(self) -> None:
        check_range("period", self.period, at_least=1, whole=True)
        check_range("ramp_fraction", self.ramp_fraction, above=0, at_most=1)
        check_range("num_cycles", self.num_cycles, at_least=1, whole=True, or_null=True)

    def __call__(self, step: int) -> float:
        """Return the value at `step`."""
        if self.num_cycles is not None and step >= self.num_cycles * self.period:
            return self.end_value
        tau = (step % self.period) / self.period
        return self.start_value + (self.end_value - self.start_value) * min(1.0, tau / self.ramp_fraction)


@dataclass(frozen=True)
class ExponentialDecayScheduler(Schedule):
    r"""Geometric decay with a floor: v(t) = max(m, v_0 d^t).

    Args:
        start_value: v_0.
        decay_rate: d, in (0, 1].
        min_value: m.
    """

    start_value: float = 1.0
    decay_rate: float = 0.999
    min_value: float = 0.0

    def __post_init__(self) -> None:
        check_range("decay_rate", self.decay_rate, above=0, at_most=1)

    def __call__(self, step: int) -> float:
        """Return the value at `step`."""
        return max(self.min_value, self.start_value * self.decay_rate**step)


@dataclass(frozen=True)
class MultiStepScheduler(Schedule):
    r"""A factor at each milestone: v(t) = v_0 gamma^(number of milestones <= t).

    Args:
        start_value: v_0.
        milestones: Steps, strictly increasing, each >= 1.
        gamma: Factor, > 0.
    """

    start_value: float = 1.0
    milestones: Sequence[int] = (10_000,)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        check_range("gamma", self.gamma, above=0, below=math.inf)
        steps = list(self.milestones)
        if steps != sorted(set(steps)) or any(step < 1 for step in steps):
            raise ValueError(f"milestones must be strictly increasing steps of at least 1; got {steps}")

    def __call__(self, step: int) -> float:
        """Return the value at `step`."""
        return self.start_value * self.gamma ** sum(milestone <= step for milestone in self.milestones)


@dataclass(frozen=True)
class WarmupScheduler(Schedule):
    r"""A linear rise to another schedule's first value, and then that schedule.

    With f the initial factor, v_0 the main schedule's first value and w the warm-up's length,

    .. math:: v(t) = (f + (1 - f) t / w) v_0, \quad t < w; \qquad v(t) = main(t - w), \quad t \ge w

    Args:
        main_scheduler: The schedule that follows.
        warmup_steps: w, >= 0.
        warmup_init_factor: f, in [0, 1].
    """

    main_scheduler: Schedule = ConstantScheduler()
    warmup_steps: int = 1_000
    warmup_init_factor: float = 0.01

    def __post_init__(self) -> None:
        check_range("warmup_steps", self.warmup_steps, at_least=0, whole=True)
        check_range("warmup_init_factor", self.warmup_init_factor, at_least=0, at_most=1)

    def __call__(self, step: int) -> float:
        """Return the value at `step`."""
        if step >= self.warmup_steps:
            return self.main_scheduler(step - self.warmup_steps)
        f = self.warmup_init_factor
        return (f + (1 - f) * step / self.warmup_steps) * self.main_scheduler(0)


@dataclass(frozen=True)
class ConstantThenLinearScheduler(Schedule):
    r"""A constant for a while, then a straight line, then constant again: the annealing of NVAE.

    .. math:: v(t) = v_0, \; t < c; \qquad v_0 + (v_1 - v_0) \min(1, (t - c) / n), \; t \ge c

    References:
        NVAE: A Deep Hierarchical Variational Autoencoder (Vahdat and Kautz, 2020), https://arxiv.org/abs/2007.03898;
        v_0 = 1e-4 is theirs.
    Args:
        start_value: v_0.
        end_value: v_1.
        constant_steps: c, >= 0.
        n_steps: n, >= 0.
    """

    start_value: float = 1e-4
    end_value: float = 1.0
    constant_steps: int = 0
    n_steps: int = 10_000

    def __post_init__(self) -> None:
        check_range("constant_steps", self.constant_steps, at_least=0, whole=True)
        check_range("n_steps", self.n_steps, at_least=0, whole=True)

    def __call__(self, step: int) -> float:
        """Return the value at `step`."""
        if step < self.constant_steps:
            return self.start_value
        return LinearScheduler(self.start_value, self.end_value, self.n_steps)(step - self.constant_steps)


@dataclass(frozen=True)
class TemperatureScheduler(Schedule):
    r"""No noise until a share of the time has passed, then a linear rise; its square root by default.

    With s = t_start + (t_end - t_start) min(t, n) / n,

    .. math:: \epsilon = 0, \; s < \tau; \qquad \epsilon_{max} (s - \tau) / (1 - \tau), \; \tau \le s < 1; \qquad
        \epsilon_{max}, \; s \ge 1

    References:
        Energy Matching (Balcerak et al., 2025), https://arxiv.org/abs/2504.10612
    Args:
        epsilon_max: Largest value, >= 0.
        tau_star: tau, in [0, 1).
        n_steps: n, >= 1.
        t_start: s at step 0.
        t_end: s at step n.
        sqrt: Whether the square root is returned, the factor of the noise rather than its temperature.
    """

    epsilon_max: float = 0.1
    tau_star: float = 0.8
    n_steps: int = 200
    t_start: float = 0.0
    t_end: float = 1.0
    sqrt: bool = True

    def __post_init__(self) -> None:
        check_range("epsilon_max", self.epsilon_max, at_least=0, below=math.inf)
        check_range("tau_star", self.tau_star, at_least=0, below=1)
        check_range("n_steps", self.n_steps, at_least=1, whole=True)

    def __call__(self, step: int) -> float:
        """Return the value at `step`."""
        s = self.t_start + (self.t_end - self.t_start) * min(step, self.n_steps) / self.n_steps
        rise = (s - self.tau_star) / (1 - self.tau_star)
        epsilon = self.epsilon_max * min(1.0, max(0.0, rise))
        return math.sqrt(epsilon) if self.sqrt else epsilon


def as_schedule(value: float | Schedule) -> Schedule:
    """Return a schedule as it is, and a number as a constant."""
    return value if isinstance(value, Schedule) else ConstantScheduler(float(value))


def value_at(name: str, schedule: Schedule, step: int | None) -> float:
    """Return the value at a step, which a constant does without.

    Raises:
        ValueError: if the value changes with the step, and none is given.
    """
    if step is None and not isinstance(schedule, ConstantScheduler):
        raise ValueError(f"{name} changes with the step: give step=, the optimiser's step, or {name}=")
    return schedule(step or 0)


def _logistic(u: float) -> float:
    return 1 / (1 + math.exp(-u))
