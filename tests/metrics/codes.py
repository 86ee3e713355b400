"""Metrics of codes, judged on codes that are given: a model whose posterior's means are its data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vaebench.data.split import DataSplit
from vaebench.distributions.likelihoods import Gaussian
from vaebench.metrics.base import Metric, Result
from vaebench.models.vae import VAE
from vaebench.networks import MLP


def transparent(dim: int) -> VAE:
    """A model that encodes x of shape (dim,) as itself."""
    model = VAE((dim,), likelihood=Gaussian(), latent_dim=dim, network=MLP(hidden_dims=()))
    with torch.no_grad():
        model.posterior_head.linear.weight.zero_()
        model.posterior_head.linear.bias.zero_()
        model.posterior_head.linear.weight[:dim] = torch.eye(dim)
    return model


def measured(
    metric: Metric, z: Tensor, factors: Tensor | None = None, y: Tensor | None = None, **options: Any
) -> Result:
    """Judge codes, shape (N, D), with their factors or labels."""
    options.setdefault("batch_size", 1000)
    return metric(transparent(z.shape[1]), DataSplit(z.float(), y, factors=factors), **options)
