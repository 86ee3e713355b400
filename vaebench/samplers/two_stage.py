r"""A second VAE on the latents of the first."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence
from typing_extensions import Unpack

from vaebench.core import Batch, Draws, Loss, ProgressFunction
from vaebench.distributions.diagonal_gaussian import DiagonalGaussian, StandardNormal
from vaebench.distributions.posteriors import DiagonalGaussianPosterior
from vaebench.hardware import collective
from vaebench.messages import check_range
from vaebench.samplers.fitting import COPIES, FitSettings, StandardizedModel, TrainedSampler


class TwoStageSampler(TrainedSampler):
    r"""Two-stage sampling (Dai and Wipf, 2019): a second VAE whose data are latents of the first.

    The aggregate posterior q(z) of the first VAE is not its prior; the second, whose latent u has as many dimensions
    as z, closes that gap. A sample is decoded twice:

    .. math:: u \sim N(0, I), \quad z \sim N(f_2(u), \gamma^2 I), \quad x = f_1(z)

    References:
        Diagnosing and Enhancing VAE Models (Dai and Wipf, 2019), https://arxiv.org/abs/1903.05789. Three layers of 1024
        units whose input is also given to the last layer, 800 epochs of batches of 64, and a learning rate of 1e-4 that
        is halved every 300 epochs are the defaults of its code, https://github.com/daib13/TwoStageVAE.
    Deviations:
        Latents are standardised, and one is drawn from each posterior, not a new one in each epoch. A tenth is held
        out, and the fit ends when their loss no longer improves. gamma has a lower bound: between u and z of equally
        many dimensions the ELBO does not fall as gamma and the posteriors' width go to 0 together, and gradients grow
        as 1 / gamma^2 there.
    Args:
        hidden_dim: Units of a hidden layer, >= 1.
        num_layers: Hidden layers of encoder and decoder, >= 1.
        min_gamma: Lower bound of gamma, in standard deviations of the latents, in (0, 1).
        num_epochs: Most passes over the latents, >= 1.
        patience: Epochs without improvement before the fit ends, >= 1.
        batch_size: Latents in a step, >= 1; all of them where there are fewer.
        learning_rate: Of Adam, > 0.
        **settings: Those of `TrainedSampler`; the temperature scales u and the noise of z.
    """

    trainer_options: ClassVar[Mapping[str, Any]] = {
        "scheduler": "StepLR",
        "scheduler_args": {"step_size": 300, "gamma": 0.5},
    }
    density: SecondStage

    def __init__(  # type: ignore[misc]
        self,
        *,
        hidden_dim: int = 1024,
        num_layers: int = 3,
        min_gamma: float = 0.02,
        num_epochs: int = 800,
        patience: int = 50,
        batch_size: int = 64,
        learning_rate: float = 1e-4,
        **settings: Unpack[FitSettings],
    ) -> None:
        super().__init__(
            num_epochs=num_epochs,
            patience=patience,
            batch_size=batch_size,
            learning_rate=learning_rate,
            **settings,
        )
        check_range("hidden_dim", hidden_dim, at_least=1, whole=True)
        check_range("num_layers", num_layers, at_least=1, whole=True)
        check_range("min_gamma", min_gamma, above=0, below=1)
        self.hidden_dim, self.num_layers, self.min_gamma = hidden_dim, num_layers, min_gamma

    @property
    def second_encoder(self) -> SecondEncoder:
        """q(u|z), after `setup`."""
        return self.density.encoder

    @property
    def second_decoder(self) -> SecondDecoder:
        """The mean of p(z|u), after `setup`."""
        return self.density.decoder

    def fit_bytes(self, num_features: int) -> int:
        """The last layers of encoder and decoder have 3 D^2 weights together."""
        return COPIES * 4 * 3 * num_features**2

    def build(self, model: Any) -> SecondStage:
        """Return the second VAE."""
        num_features = math.prod(self.latent_shape)
        sizes = (num_features, self.hidden_dim, self.num_layers, self.num_labels)
        return SecondStage(SecondEncoder(*sizes), SecondDecoder(*sizes), self.min_gamma)

    @torch.no_grad()
    def sample(self, num_samples: int, y: Tensor | None = None, *, progress: ProgressFunction | None = None) -> Draws:
        """Draw u, then z given u."""
        y = self.labels(num_samples, y)
        self.check_fitted()
        second, shape = self.density, (num_samples, *self.density.shape)
        u = self.temperature * collective.standard_normal(shape, second.mean)
        p = second.likelihood(u, self.context(y))
        z = p.mean + self.temperature * p.stddev * collective.standard_normal(shape, second.mean)
        return Draws(second.restore(z).to(self.like).view(num_samples, *self.latent_shape), y)


class SecondEncoder(nn.Module):
    """Encoder of a second stage: ReLU layers on z, and z itself beside them before the last, linear one.

    Args:
        latent_dim: D, of z and of u alike.
        hidden_dim: Units of a hidden layer.
        num_layers: Hidden layers.
        context_dim: Entries of the context; 0 for none.
    """

    def __init__(self, latent_dim: int, hidden_dim: int = 1024, num_layers: int = 3, context_dim: int = 0) -> None:
        super().__init__()
        self.trunk = _Trunk(latent_dim + context_dim, hidden_dim, num_layers, 2 * latent_dim)
        self.posterior_head = DiagonalGaussianPosterior().build_from_pair()

    def forward(self, z: Tensor, context: Tensor | None = None) -> DiagonalGaussian:
        """Return q(u|z), which unpacks as mean and log-variance; z (B, D), context (B, context_dim)."""
        q: DiagonalGaussian = self.posterior_head(self.trunk(_beside(z, context)))
        return q


class SecondDecoder(nn.Module):
    """Decoder of a second stage: ReLU layers on u, and u itself beside them before the last, linear one.

    Args: those of `SecondEncoder`.
    """

    def __init__(self, latent_dim: int, hidden_dim: int = 1024, num_layers: int = 3, context_dim: int = 0) -> None:
        super().__init__()
        self.trunk = _Trunk(latent_dim + context_dim, hidden_dim, num_layers, latent_dim)

    def forward(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the mean of p(z|u), shape (B, D); u (B, D), context (B, context_dim)."""
        mean: Tensor = self.trunk(_beside(u, context))
        return mean


class SecondStage(StandardizedModel):
    r"""The second VAE: minus its ELBO in standardised latents is the loss.

    .. math:: -E_{q(u|z)}[\log N(z; f_2(u), \gamma^2 I)] + KL(q(u|z) \| N(0, I))

    Args:
        encoder: z -> q(u|z).
        decoder: u -> mean of p(z|u).
        min_gamma: Lower bound of gamma.
    """

    def __init__(self, encoder: SecondEncoder, decoder: SecondDecoder, min_gamma: float = 0.02) -> None:
        super().__init__(decoder.trunk.out_features)
        self.encoder, self.decoder = encoder, decoder
        self.bound = -math.log(min_gamma)
        self.raw_log_gamma = nn.Parameter(torch.zeros(()))

    @property
    def log_gamma(self) -> Tensor:
        """log gamma, which starts at 0 and stays above log(min_gamma), a scalar."""
        return self.bound * torch.tanh(self.raw_log_gamma / self.bound)

    def likelihood(self, u: Tensor, context: Tensor | None = None) -> DiagonalGaussian:
        """Return p(z|u) over standardised latents, (B, D)."""
        mean = self.decoder(u, context)
        return DiagonalGaussian(mean, (2 * self.log_gamma).expand_as(mean))

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return minus the ELBO; nats per latent."""
        z = self.standardize(batch.x)
        q = self.encoder(z, batch.context)
        u = q.rsample()
        distortion = -self.likelihood(u, batch.context).log_prob(z)
        rate = kl_divergence(q, StandardNormal(torch.zeros_like(self.mean)))
        return Loss.mean(distortion + rate, distortion=distortion, rate=rate, gamma=self.log_gamma.exp())


class _Trunk(nn.Module):
    def __init__(self, in_features: int, hidden_dim: int, num_layers: int, out_features: int) -> None:
        super().__init__()
        self.out_features = out_features
        widths = [in_features, *[hidden_dim] * num_layers]
        layers = [[nn.Linear(before, after), nn.ReLU()] for before, after in itertools.pairwise(widths)]
        self.layers = nn.Sequential(*[module for pair in layers for module in pair])
        self.last = nn.Linear(hidden_dim + in_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([x, self.layers(x)], -1))


def _beside(x: Tensor, context: Tensor | None) -> Tensor:
    return x if context is None else torch.cat([x, context], -1)
