"""A model whose log p(x) is exact: x = W z + sigma eps with orthogonal columns of W, q(z|x) its exact posterior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from vaebench.distributions.likelihoods import Gaussian
from vaebench.networks import MLP

SIGMA = 0.7
BOUND = 10.0  # of the log-variance


def linear_gaussian(kind: type, log_var_shift: float = 0.0, **arguments: Any) -> tuple[Any, Callable[[Tensor], Tensor]]:
    """Return a model of that class for (6,) with 2 latent dimensions in float64, and log p(x).

    With a shift of the log-variance its encoder is not quite the posterior.
    """
    W = torch.linalg.qr(torch.randn(6, 2, dtype=torch.float64)).Q * torch.tensor([2.0, 0.5])
    variance = 1 / (1 + (W**2).sum(0) / SIGMA**2)
    model = kind((6,), likelihood=Gaussian(SIGMA), latent_dim=2, network=MLP(hidden_dims=()), **arguments).double()
    slope = variance[:, None] * W.T / SIGMA**2
    raw = BOUND * torch.atanh((variance.log() + log_var_shift) / BOUND)
    with torch.no_grad():
        model.decoder[0].weight.copy_(W)
        model.decoder[0].bias.zero_()
        model.posterior_head.linear.weight.copy_(torch.cat([slope, torch.zeros_like(slope)]))
        model.posterior_head.linear.bias.copy_(torch.cat([torch.zeros_like(raw), raw]))
    covariance = W @ W.T + SIGMA**2 * torch.eye(6, dtype=torch.float64)
    return model, MultivariateNormal(torch.zeros(6, dtype=torch.float64), covariance).log_prob
