"""Gaussian diffusion in discrete time: noise schedules, steps of the reverse process, and the terms of its bound."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from vaebench.messages import did_you_mean

NoiseSchedule = Literal["linear", "cosine"]


def alpha_bars(noise_schedule: str, num_timesteps: int, least_variance: float = 0.0) -> Tensor:
    """Return the share of the signal's variance at t = 0, …, T, float64, shape (T + 1,).

    "linear" has beta from 1e-4 to 0.02 at T = 1000, for other T scaled so that the end is as noisy (Ho et al., 2020,
    https://arxiv.org/abs/2006.11239, section 4); "cosine" is eq. 17 of Nichol and Dhariwal (2021),
    https://arxiv.org/abs/2102.09672. Where its variance of the noise at t = 1 is below `least_variance`, T times at
    equal distances run from the moment at which it is that, to the same end.

    Raises:
        ValueError: if there is no schedule of that name.
    """
    if noise_schedule not in _BETAS:
        near = did_you_mean(noise_schedule, get_args(NoiseSchedule))
        raise ValueError(f"noise_schedule must be one of {', '.join(_BETAS)}; got '{noise_schedule}'{near}")
    betas = _BETAS[noise_schedule](num_timesteps).clamp(max=0.999)
    alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)])
    return alpha_bar if least_variance <= 1 - alpha_bar[1] else _from_variance(alpha_bar, least_variance)


def _from_variance(alpha_bar: Tensor, variance: float) -> Tensor:
    """Begin at the time when the noise has this variance: log alpha-bar, linear between the times, taken anew."""
    log_alpha_bar, num_timesteps = alpha_bar.log(), len(alpha_bar) - 1
    first = math.log1p(-variance)
    after = min(int((log_alpha_bar > first).sum()), num_timesteps)
    before = log_alpha_bar[after - 1]
    start = after - 1 + float((before - first) / (before - log_alpha_bar[after]))
    times = torch.linspace(min(start, num_timesteps - 1), num_timesteps, num_timesteps, dtype=torch.float64)
    whole = times.long().clamp(max=num_timesteps - 1)
    between = torch.lerp(log_alpha_bar[whole], log_alpha_bar[whole + 1], times - whole)
    return torch.cat([alpha_bar[:1], between.exp()])


def _linear(num_timesteps: int) -> Tensor:
    scale = 1000 / num_timesteps
    return torch.linspace(scale * 1e-4, scale * 0.02, num_timesteps, dtype=torch.float64)


def _cosine(num_timesteps: int) -> Tensor:
    t = torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64)
    f = torch.cos((t + 0.008) / 1.008 * math.pi / 2).square()
    return 1 - f[1:] / f[:-1]


_BETAS = {"linear": _linear, "cosine": _cosine}


def reverse_step(
    x_t: Tensor, epsilon: Tensor, now: float, then: float, eta: float, bound: float | None = None
) -> tuple[Tensor, float]:
    r"""Return the mean of x_s given x_t and a prediction of its noise, and the standard deviation of what is added.

    .. math:: x_s = \sqrt{\bar\alpha_s} \hat x_0 + \sqrt{1 - \bar\alpha_s - \sigma^2} \epsilon_\theta + \sigma \epsilon,
              \quad \sigma = \eta \sqrt{\frac{1 - \bar\alpha_s}{1 - \bar\alpha_t}}
              \sqrt{1 - \frac{\bar\alpha_t}{\bar\alpha_s}}

    eta = 1 over all times is ancestral sampling with the smaller of the two variances of Ho et al. (2020), eta = 0 is
    DDIM (Song et al., 2021, https://arxiv.org/abs/2010.02502, eq. 12 and 16).

    Args:
        x_t: Any shape.
        epsilon: Predicted noise, the same shape.
        now: alpha-bar at t.
        then: alpha-bar at s < t.
        eta: Share of the ancestral noise, in [0, 1].
        bound: Largest size of a predicted x_0, as the code of Ho et al. has it for pictures; None for none.
    """
    x_0 = (x_t - math.sqrt(1 - now) * epsilon) / math.sqrt(now)
    if bound is not None:
        x_0 = x_0.clamp(-bound, bound)
        epsilon = (x_t - math.sqrt(now) * x_0) / math.sqrt(1 - now)
    sigma = eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
    return math.sqrt(then) * x_0 + math.sqrt(max(0.0, 1 - then - sigma**2)) * epsilon, sigma


def noise_weights(alpha_bar: Tensor) -> Tensor:
    r"""Return what the squared error of the predicted noise weighs in the bound, nats, at t = 2, …, T.

    .. math:: KL(q(x_{t-1}|x_t, x_0) \| p_\theta(x_{t-1}|x_t)) = w_t \|\epsilon - \epsilon_\theta\|^2, \quad
              w_t = \frac{\beta_t^2}{2 \sigma_t^2 \alpha_t (1 - \bar\alpha_t)}, \quad
              \sigma_t^2 = \frac{1 - \bar\alpha_{t-1}}{1 - \bar\alpha_t} \beta_t

    with the variance of q for p_theta's (Ho et al., 2020, eq. 12). The weight is half the fall of the signal-to-noise
    ratio from t - 1 to t, times (1 - alpha-bar_t) / alpha-bar_t.

    Args:
        alpha_bar: At t = 0, …, T, shape (T + 1,).

    Returns:
        Shape (T - 1,).
    """
    ratio = alpha_bar / (1 - alpha_bar)  # signal-to-noise ratio; infinite at t = 0, which is unused
    return 0.5 * (ratio[1:-1] - ratio[2:]) / ratio[2:]
