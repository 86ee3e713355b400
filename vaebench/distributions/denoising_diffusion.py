"""The likelihood by a diffusion that the decoder's output conditions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from vaebench.distributions.context_likelihood import ContextDistribution, ContextLikelihood
from vaebench.messages import check_range, did_you_mean
from vaebench.networks.denoiser import conditional_denoiser
from vaebench.objectives.diffusion import NoiseSchedule, alpha_bars, noise_weights, reverse_step

Weighting = Literal["variational", "simple"]
NUM_TIMES = 8  # per example when not training: the bound at a single time is noisy
FIRST = 0.125  # share of the draws that x_1 gets in training
NOISE_SEED = 0  # for the fixed noise


class DenoisingDiffusion(ContextLikelihood):
    r"""p(x|z) by a network that predicts the noise in x_t, given the decoder's output c(z).

    .. math:: x_t = \sqrt{\bar\alpha_t} x_0 + \sqrt{1 - \bar\alpha_t} \epsilon, \quad
        \log p(x|z) \ge \log p(x_0|x_1) - \sum_{t=2}^T w_t \|\epsilon - \epsilon_\theta(x_t, t, c)\|^2
        - KL(q(x_T|x_0) \| N(0, I))

    with the weights w_t of `objectives.diffusion.noise_weights`. `log_prob` is an unbiased estimate of the bound: in
    training from one time, which is one pass of the network; otherwise from x_1 and eight times of the sum. Times are
    drawn as often as they weigh. With `weighting=simple` it is -||epsilon - epsilon_theta||^2 at a time drawn evenly
    from 1, …, T, which bounds nothing.

    The network returns v, of which epsilon_theta = sqrt(alpha-bar_t) v + sqrt(1 - alpha-bar_t) x_t; c(z) begins with
    the decoder's own picture of x, which a model may train (`DiffusionVAE` does).

    Data with levels are carried to [-1, 1], and p(x_0|x_1) is a Gaussian's mass in the bin of each level (eq. 13).
    Draws pass `num_steps` times, denser near 0, by DDIM; eta = 1 and num_steps = T make them the ancestral sampling of
    Ho et al. On the way the predicted x_0 of data with levels is kept in [-1, 1]. `mean` stands in for the mean of x,
    which has no closed form: it is the draw that belongs to one fixed noise, the same for every z.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), https://arxiv.org/abs/2006.11239 (eq. 5, 12 to 14);
        DiffuseVAE (Pandey et al., 2022), https://arxiv.org/abs/2201.00308, for a decoder of which x_t is told;
        Denoising Diffusion Implicit Models (Song et al., 2021), https://arxiv.org/abs/2010.02502, for fewer steps;
        Progressive Distillation for Fast Sampling of Diffusion Models (Salimans and Ho, 2022),
        https://arxiv.org/abs/2202.00512 (appendix D), for v
    Deviations:
        Ho et al. predict epsilon itself, from which x_0 cannot be told where x_t is nearly all noise. Their first
        noise, 0.01, suits 256 levels; with fewer, the schedule begins where the noise is a quarter of the distance
        between levels (0.03 for 17), since finer noise costs D log 3 nats there unless the network learns to round.
        Their times are uniform. The network and its sizes are ours.
    Args:
        num_levels: n, >= 2, or null for real data; `auto` is the data set's.
        weighting: `variational`, or `simple`.
        noise_schedule: `linear` (Ho et al.), or `cosine`.
        num_timesteps: T, >= 2; 1000, that of Ho et al.
        num_steps: Times that a draw passes, from 1 to T; 20 is one of those of Song et al. (table 1).
        eta: Share of the ancestral noise in a draw, in [0, 1]; 0 is DDIM.
        context_dim: Channels, or entries, of c(z) beyond the decoder's picture, >= 1.
        hidden_dim: Width of the network, >= 2.
        num_blocks: Its residual blocks, >= 1.
    """

    alpha_bar: Tensor
    weights: Tensor

    def __init__(
        self,
        num_levels: int | Literal["auto"] | None = "auto",
        weighting: Weighting = "variational",
        noise_schedule: NoiseSchedule = "linear",
        num_timesteps: int = 1000,
        num_steps: int = 20,
        eta: float = 0.0,
        context_dim: int = 16,
        hidden_dim: int = 32,
        num_blocks: int = 3,
    ) -> None:
        super().__init__(num_levels, context_dim)
        if weighting not in get_args(Weighting):
            raise ValueError(f"weighting: unknown name '{weighting}'{did_you_mean(weighting, get_args(Weighting))}")
        check_range("num_timesteps", num_timesteps, at_least=2, whole=True)
        check_range("num_steps", num_steps, at_least=1, at_most=num_timesteps, whole=True)
        check_range("eta", eta, at_least=0, at_most=1)
        check_range("hidden_dim", hidden_dim, at_least=2, whole=True)
        check_range("num_blocks", num_blocks, at_least=1, whole=True)
        self.log_prob_is = "a bound"
        self.weighting, self.num_steps, self.eta = weighting, num_steps, eta
        self._sizes = (hidden_dim, num_blocks)
        least = 0.0 if self.num_levels is None else (0.5 / (self.num_levels - 1)) ** 2  # a quarter of their distance
        alpha_bar = alpha_bars(noise_schedule, num_timesteps, least)
        self.register_buffer("alpha_bar", alpha_bar, persistent=False)
        self.register_buffer("weights", noise_weights(alpha_bar), persistent=False)

    def setup(self, shape: tuple[int, ...]) -> None:
        """Create the denoiser for examples of this shape."""
        self.shape = tuple(shape)
        self.denoiser = conditional_denoiser(shape, *self._sizes, shape[0] + self.context_dim)

    def params_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The reconstruction, then the further context: (C + context_dim, H, W), or (D + context_dim,) for vectors."""
        return (shape[0] + self.context_dim, *shape[1:])

    def noise_in(self, x_t: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """Return epsilon_theta for x_t (N, *shape) at times t (N,); same shape."""
        alpha_bar = self.alpha_bar[t].to(x_t.dtype).view(-1, *[1] * (x_t.ndim - 1))
        return alpha_bar.sqrt() * self.denoiser(x_t, t, context) + (1 - alpha_bar).sqrt() * x_t

    def caution(self, x: Tensor) -> str | None:
        """Say that the number is a bound."""
        return "log p(x|z) is a lower bound, by diffusion"

    def given(self, context: Tensor) -> DiffusionDistribution:
        """Return p(x|z) for contexts of shape (..., context_dim, …)."""
        return DiffusionDistribution(self, context)


class DiffusionDistribution(ContextDistribution):
    """p(x|z) by the denoiser of `head`; see `ContextDistribution`."""

    def __init__(self, head: DenoisingDiffusion, context: Tensor) -> None:
        super().__init__(head.shape, context)
        self._head = head

    @property
    def reconstruction(self) -> Tensor:
        """The decoder's own picture of x, in the range of the data, shape (*batch_shape, *event_shape)."""
        own = self.context.narrow(len(self.batch_shape), 0, self.event_shape[0])
        return own if self._head.num_levels is None else (own + 1) / 2

    def log_prob(self, value: Tensor) -> Tensor:
        """Estimate of the bound for value (..., *event_shape), nats, shape (...); see `DenoisingDiffusion`."""
        x, context, batch_shape = self.rows(value)
        x = x if self._head.num_levels is None else 2 * x - 1
        with torch.autocast(x.device.type, enabled=False):
            if self._head.weighting == "simple":
                t = self._times(batch_shape)
                return -self._squared_error(x, context, t, batch_shape)[0].view(batch_shape)
            if self._head.training:
                return (self._any_term(x, context, batch_shape) - self._prior_rate(x)).view(batch_shape)
            bound = self._last_step(x, context, batch_shape) - self._prior_rate(x)
            for _ in range(NUM_TIMES):
                bound = bound + self._sum_of_terms(x, context, batch_shape) / NUM_TIMES
            return bound.view(batch_shape)

    @property
    def mean(self) -> Tensor:
        """The end of the reverse process from one fixed noise, shape (*batch_shape, *event_shape)."""
        generator = torch.Generator().manual_seed(NOISE_SEED)
        x, context, _ = self.rows(self.context.new_zeros(self.event_shape))

        def fixed() -> Tensor:
            noise = torch.randn(self.event_shape, generator=generator, dtype=torch.float64)
            return noise.to(x).expand_as(x)

        return self._to_data(self._reversed(context, fixed), on_levels=False).view(self._extended_shape())

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Draw x, on its levels where it has them; shape (*sample_shape, *batch_shape, *event_shape).

        Each draw has a stream of noise of its own, so that many at once are the same as one after the other.
        """
        batch_shape = torch.Size((*sample_shape, *self.batch_shape))
        high, low = (self.uniform(batch_shape, (2,)).double() * 2**24).long().unbind(-1)
        return self.sample_by_seeds((high * 2**24 + low).tolist(), sample_shape)

    @torch.no_grad()
    def sample_by_seeds(self, seeds: Sequence[int], sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Same as `sample`, the noise of each draw from a seed of its own; as many as there are draws."""
        shape = self._extended_shape(torch.Size(sample_shape))
        x, context, _ = self.rows(self.context.new_zeros(shape))
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        block = (1 if self._head.eta == 0 else 16, *self.event_shape)  # of times at once; DDIM needs the first alone
        waiting: list[Tensor] = []

        def own() -> Tensor:
            if not waiting:
                waiting.extend(torch.stack([torch.randn(block, generator=g) for g in generators], 1).to(x))
            return waiting.pop()

        return self._to_data(self._reversed(context, own), on_levels=True).view(shape)

    # The terms of the bound for N examples, each of shape (N,)

    def _prior_rate(self, x: Tensor) -> Tensor:
        """KL(q(x_T|x_0) || N(0, I)), nats."""
        alpha_bar = float(self._head.alpha_bar[-1])
        variance = 1 - alpha_bar
        return (0.5 * (alpha_bar * x.square() + variance - math.log(variance) - 1)).flatten(1).sum(1)

    def _last_step(self, x: Tensor, context: Tensor, batch_shape: torch.Size) -> Tensor:
        """log p(x_0|x_1) at a draw of x_1: a Gaussian about the predicted x_0 of variance beta_1; nats."""
        first = torch.ones(len(x), dtype=torch.long, device=x.device)
        _, x_1, epsilon = self._squared_error(x, context, first, batch_shape)
        return self._log_mass_given(x, x_1, epsilon)

    def _log_mass_given(self, x: Tensor, x_1: Tensor, epsilon: Tensor) -> Tensor:
        alpha_bar = float(self._head.alpha_bar[1])
        mean, sigma = (x_1 - math.sqrt(1 - alpha_bar) * epsilon) / math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
        n = self._head.num_levels
        if n is None:
            standard = (x - mean) / sigma
            return (-0.5 * standard.square() - math.log(sigma * math.sqrt(2 * math.pi))).flatten(1).sum(1)
        upper, lower = (x + 1 / (n - 1) - mean) / sigma, (x - 1 / (n - 1) - mean) / sigma
        upper = upper.masked_fill(x > 1 - 1 / (n - 1), math.inf)
        lower = lower.masked_fill(x < -1 + 1 / (n - 1), -math.inf)
        return _log_mass(lower, upper).flatten(1).sum(1)

    def _sum_of_terms(self, x: Tensor, context: Tensor, batch_shape: torch.Size) -> Tensor:
        """-sum over t of w_t ||epsilon - epsilon_theta||^2, from one time drawn from 2, …, T; nats."""
        weights = self._head.weights
        t = 2 + _drawn(weights, self.uniform(batch_shape))
        return -weights.sum().to(x.dtype) * self._squared_error(x, context, t, batch_shape)[0]

    def _any_term(self, x: Tensor, context: Tensor, batch_shape: torch.Size) -> Tensor:
        """log p(x_0|x_1) plus the sum over t, from one time drawn from 1, …, T; nats."""
        total = self._head.weights.sum()
        t = 1 + _drawn(torch.cat([FIRST / (1 - FIRST) * total[None], self._head.weights]), self.uniform(batch_shape))
        squared, x_t, epsilon = self._squared_error(x, context, t, batch_shape)
        last = self._log_mass_given(x, x_t, epsilon)
        return torch.where(t == 1, last / FIRST, -total.to(x.dtype) / (1 - FIRST) * squared)

    def _squared_error(
        self, x: Tensor, context: Tensor, t: Tensor, batch_shape: torch.Size
    ) -> tuple[Tensor, Tensor, Tensor]:
        """||epsilon - epsilon_theta||^2, x_t and epsilon_theta at times t (N,)."""
        epsilon = self.normal(batch_shape)
        alpha_bar = self._head.alpha_bar[t].to(x.dtype).view(-1, *[1] * (x.ndim - 1))
        x_t = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * epsilon
        predicted = self._head.noise_in(x_t, t, context)
        return (epsilon - predicted).square().flatten(1).sum(1), x_t, predicted

    def _times(self, batch_shape: torch.Size) -> Tensor:
        """Draw times from 1, …, T, each as often, int64, shape (N,)."""
        num = len(self._head.alpha_bar) - 1
        return 1 + (num * self.uniform(batch_shape)).long().clamp(max=num - 1)

    # The reverse process

    def _reversed(self, context: Tensor, noise: Callable[[], Tensor]) -> Tensor:
        """Follow the reverse process from noise to x_0, shape (N, *event_shape)."""
        alpha_bar, eta = self._head.alpha_bar, self._head.eta
        bound = None if self._head.num_levels is None else 1.0
        times = _times_of_draw(len(alpha_bar) - 1, self._head.num_steps)
        x = noise()
        with torch.autocast(x.device.type, enabled=False):
            for t, s in itertools.pairwise(times):
                predicted = self._head.noise_in(x, torch.full((len(x),), t, device=x.device), context)
                x, sigma = reverse_step(x, predicted, float(alpha_bar[t]), float(alpha_bar[s]), eta, bound)
                if sigma > 0:
                    x = x + sigma * noise()
        return x

    def _to_data(self, x: Tensor, on_levels: bool) -> Tensor:
        """Carry x_0 to the data's range, shape kept."""
        n = self._head.num_levels
        if n is None:
            return x
        x = ((x + 1) / 2).clamp(0, 1)
        return (x * (n - 1)).round() / (n - 1) if on_levels else x


def _drawn(weights: Tensor, uniform: Tensor) -> Tensor:
    """Draw an index of the weights (K,) for each number of U[0, 1), as often as they say; int64, same shape."""
    shares = weights.cumsum(0) / weights.sum()
    return torch.searchsorted(shares, uniform.to(shares.dtype), right=True).clamp(max=len(weights) - 1)


def _times_of_draw(num_timesteps: int, num_steps: int) -> list[int]:
    """Times from T to 0, denser towards 0, where x takes its shape: t_i = T (i / S)^2, and at least i.

    Song et al. (2021, appendix D.2) have this quadratic spacing for CIFAR-10.
    """
    times = (max(i, round(num_timesteps * (i / num_steps) ** 2)) for i in range(num_steps + 1))
    return sorted(times, reverse=True)


def _log_mass(lower: Tensor, upper: Tensor) -> Tensor:
    """log(Phi(upper) - Phi(lower)) for lower < upper, without cancellation in either tail; shape kept."""
    is_right = lower > 0
    a, b = torch.where(is_right, -upper, lower), torch.where(is_right, -lower, upper)  # a < b, left of 0
    log_a, log_b = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    return log_b + torch.log1p(-(log_a - log_b).exp().clamp(max=1 - torch.finfo(a.dtype).eps))
