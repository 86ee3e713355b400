"""A model whose log p(x) and posterior are exact: x = W z + b + sigma eps with orthogonal columns of W."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaebench.data.split import DataSplit
from vaebench.distributions.likelihoods import Gaussian
from vaebench.models.vae import VAE
from vaebench.networks import MLP

SIGMA, SCALES = 0.7, (2.0, 0.5)
DIM, LATENT = 5, len(SCALES)


def make(num_examples: int = 40, mean_shift: float = 0.0, log_var_shift: float = 0.0) -> tuple[VAE, DataSplit, Tensor]:
    """Return the model in float64, examples drawn from it, and their exact log p(x), shape (N,), nats.

    Without shifts its encoder is the exact posterior.
    """
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    W = torch.linalg.qr(draw(DIM, LATENT))[0] * torch.tensor(SCALES, dtype=torch.float64)
    b = draw(DIM)
    model = VAE((DIM,), likelihood=Gaussian(SIGMA), latent_dim=LATENT, network=MLP(hidden_dims=())).double()
    variance = 1 / (1 + W.square().sum(0) / SIGMA**2)
    to_mean = variance[:, None] * W.T / SIGMA**2
    head = model.posterior_head
    log_var = variance.log() + log_var_shift
    with torch.no_grad():
        model.likelihood_head.log_scale.copy_(torch.tensor(math.log(SIGMA), dtype=torch.float64))
        model.decoder[0].weight.copy_(W)
        model.decoder[0].bias.copy_(b)
        head.linear.weight.copy_(torch.cat([to_mean, torch.zeros_like(to_mean)]))
        head.linear.bias.copy_(torch.cat([mean_shift - to_mean @ b, head.bound * torch.atanh(log_var / head.bound)]))
    x = draw(num_examples, LATENT) @ W.T + b + SIGMA * draw(num_examples, DIM)
    covariance = W @ W.T + SIGMA**2 * torch.eye(DIM, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(b, covariance).log_prob(x)
    return model, Float64Split(x), exact


class Float64Split(DataSplit):
    """A split that keeps the oracle's precision."""

    def _to_float(self, x: Tensor) -> Tensor:
        return x
