r"""A diffusion model on the latents after training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from vaebench.core import Batch, Draws, Loss, ProgressFunction
from vaebench.hardware import collective
from vaebench.messages import check_range
from vaebench.networks.denoiser import Denoiser
from vaebench.objectives.diffusion import NoiseSchedule, alpha_bars, reverse_step
from vaebench.samplers.fitting import COPIES, FitSettings, StandardizedModel, TrainedSampler

NUM_TIMES = 8  # per held-out latent: the loss at a single time is noisy


class LatentDiffusionSampler(TrainedSampler):
    r"""Denoising diffusion on standardised latents, by a small network that predicts the noise.

    .. math:: x_t = \sqrt{\bar\alpha_t} x_0 + \sqrt{1 - \bar\alpha_t} \epsilon, \quad
              L = E \|\epsilon - \epsilon_\theta(x_t, t)\|^2      (eq. 4 and 14)

    The noise has full rank, and blocks narrower than D could not return it. So the network gives v, which vanishes for
    latents that are N(0, I) already, and the noise is :math:`\epsilon_\theta = \sqrt{1 - \bar\alpha_t} x_t +
    \sqrt{\bar\alpha_t} v_\theta(x_t, t)` (Salimans and Ho).

    Draws go from t = T down through `num_steps` times, from each to the one before it (eq. 12 of Song et al.):

    .. math:: x_s = \sqrt{\bar\alpha_s} \hat x_0 + \sqrt{1 - \bar\alpha_s - \sigma^2} \epsilon_\theta
              + \sigma \epsilon, \quad
              \sigma = \eta \sqrt{\frac{1 - \bar\alpha_s}{1 - \bar\alpha_t}}
              \sqrt{1 - \frac{\bar\alpha_t}{\bar\alpha_s}}

    With eta = 1 and all times that is ancestral sampling, with eta = 0 it is DDIM, which draws noise only at the start.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), https://arxiv.org/abs/2006.11239, for the loss, the
        linear schedule and T = 1000; Denoising Diffusion Implicit Models (Song et al., 2021),
        https://arxiv.org/abs/2010.02502, for eta and fewer steps; Improved Denoising Diffusion Probabilistic Models
        (Nichol and Dhariwal, 2021), https://arxiv.org/abs/2102.09672, for the cosine schedule; Progressive Distillation
        for Fast Sampling of Diffusion Models (Salimans and Ho, 2022), https://arxiv.org/abs/2202.00512, for v;
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022),
        https://arxiv.org/abs/2112.10752, for diffusion on latents
    Deviations:
        Ancestral sampling uses the smaller of the two variances of Ho et al. (section 3.2), which is what eta = 1
        gives. The network, its length of training and the decay of 0.999 of its averaged weights are ours.
    Args:
        hidden_dim: Units of a residual block, >= 2.
        num_blocks: Residual blocks, >= 1.
        noise_schedule: "linear", beta from 1e-4 to 0.02 (Ho et al.), for other T scaled so that the end is as noisy;
            or "cosine" (Nichol and Dhariwal).
        num_timesteps: T, >= 2.
        num_steps: Times that a draw passes, from 1 to T; null passes all.
        eta: Share of the ancestral noise, in [0, 1].
        num_epochs: Most passes over the latents, >= 1.
        patience: Epochs without improvement before the fit ends, >= 1.
        **settings: Those of `TrainedSampler`; the temperature scales the noise at the start and in each step.
    """

    trainer_options: ClassVar[Mapping[str, Any]] = {"ema_decay": 0.999}
    instead: ClassVar[str] = "choose sampler=normal, or lower sampler.hidden_dim"
    density: LatentDiffusion

    def __init__(  # type: ignore[misc]
        self,
        *,
        hidden_dim: int = 256,
        num_blocks: int = 3,
        noise_schedule: NoiseSchedule = "linear",
        num_timesteps: int = 1000,
        num_steps: int | None = None,
        eta: float = 1.0,
        num_epochs: int = 1000,
        patience: int = 100,
        **settings: Unpack[FitSettings],
    ) -> None:
        super().__init__(num_epochs=num_epochs, patience=patience, **settings)
        check_range("hidden_dim", hidden_dim, at_least=2, whole=True)
        check_range("num_blocks", num_blocks, at_least=1, whole=True)
        check_range("num_timesteps", num_timesteps, at_least=2, whole=True)
        check_range("num_steps", num_steps, at_least=1, at_most=num_timesteps, whole=True, or_null=True)
        check_range("eta", eta, at_least=0, at_most=1)
        alpha_bars(noise_schedule, num_timesteps)  # raises for an unknown name
        self.hidden_dim, self.num_blocks = hidden_dim, num_blocks
        self.noise_schedule, self.num_timesteps = noise_schedule, num_timesteps
        self.num_steps, self.eta = num_steps, eta

    def fit_bytes(self, num_features: int) -> int:
        """Most weights are in the first and the last layer."""
        return COPIES * 4 * 2 * num_features * self.hidden_dim

    def build(self, model: Any) -> LatentDiffusion:
        """Return the diffusion."""
        num_features = math.prod(self.latent_shape)
        shares = alpha_bars(self.noise_schedule, self.num_timesteps)
        network = Denoiser(num_features, self.hidden_dim, self.num_blocks, self.num_labels)
        return LatentDiffusion(num_features, NoiseFromVelocity(network, shares), shares)

    @torch.no_grad()
    def sample(self, num_samples: int, y: Tensor | None = None, *, progress: ProgressFunction | None = None) -> Draws:
        """Draw noise, and take it away step by step."""
        y = self.labels(num_samples, y)
        self.check_fitted()
        diffusion, shape, context = self.density, (num_samples, *self.density.shape), self.context(y)
        x = self.temperature * collective.standard_normal(shape, diffusion.mean)
        num_steps = self.num_steps or self.num_timesteps
        times = torch.linspace(0, self.num_timesteps, num_steps + 1).round().long().flip(0).tolist()
        for number, (t, s) in enumerate(itertools.pairwise(times), 1):
            mean, sigma = diffusion.step(x, t, s, self.eta, context)
            x = mean if sigma == 0 else mean + self.temperature * sigma * collective.standard_normal(shape, x)
            if progress is not None:
                progress(number, num_steps)
        return Draws(diffusion.restore(x).to(self.like).view(num_samples, *self.latent_shape), y)


class LatentDiffusion(StandardizedModel):
    """A denoiser, and the noise that it was trained at.

    Args:
        num_features: D.
        denoiser: x (B, D), t (B,), context -> predicted noise (B, D).
        alpha_bars: Share of the signal's variance at t = 0, …, T, falling from 1, shape (T + 1,).
    """

    alpha_bar: Tensor

    def __init__(self, num_features: int, denoiser: nn.Module, alpha_bars: Tensor) -> None:
        super().__init__(num_features)
        self.denoiser = denoiser
        self.register_buffer("alpha_bar", alpha_bars, persistent=False)

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return the squared error of the predicted noise at one time for each latent, summed over dimensions."""
        x_0, num_times = self.standardize(batch.x), len(self.alpha_bar) - 1
        t = 1 + (num_times * collective.uniform((len(x_0),), x_0)).long().clamp(max=num_times - 1)
        epsilon = collective.standard_normal(tuple(x_0.shape), x_0)
        alpha_bar = self.alpha_bar[t, None].to(x_0.dtype)
        x_t = alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * epsilon
        return Loss.mean((epsilon - self.denoiser(x_t, t, batch.context)).square().sum(-1))

    def validation_loss(self, batch: Batch, step: int) -> Loss:
        """Return the mean of the loss at several times for each latent."""
        losses = [self.loss(batch, step).total for _ in range(NUM_TIMES)]
        return Loss(torch.stack(losses).mean())

    def step(self, x: Tensor, t: int, s: int, eta: float, context: Tensor | None = None) -> tuple[Tensor, float]:
        """Return the mean of x_s given x_t, shape (B, D), and the standard deviation of its noise.

        Args:
            x: x_t, shape (B, D).
            t: In 1, …, T.
            s: In 0, …, t - 1.
            eta: Share of the ancestral noise.
            context: Shape (B, context_dim), or None.
        """
        now, then = float(self.alpha_bar[t]), float(self.alpha_bar[s])
        epsilon = self.denoiser(x, torch.full((len(x),), t, device=x.device), context)
        return reverse_step(x, epsilon, now, then, eta)


class NoiseFromVelocity(nn.Module):
    r"""The noise :math:`\sqrt{1 - \bar\alpha_t} x_t + \sqrt{\bar\alpha_t} v`; v is 0 at the start of training.

    Args:
        network: x (B, D), t (B,), context -> v (B, D).
        alpha_bars: Share of the signal's variance at t = 0, …, T, shape (T + 1,).
    """

    alpha_bar: Tensor

    def __init__(self, network: Denoiser, alpha_bars: Tensor) -> None:
        super().__init__()
        self.network = network
        for parameter in network.last[-1].parameters():
            nn.init.zeros_(parameter)
        self.register_buffer("alpha_bar", alpha_bars, persistent=False)

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the predicted noise, shape (B, D)."""
        alpha_bar = self.alpha_bar[t, None].to(x.dtype)
        noise: Tensor = (1 - alpha_bar).sqrt() * x + alpha_bar.sqrt() * self.network(x, t, context)
        return noise
