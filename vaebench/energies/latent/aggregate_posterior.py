"""The aggregate posterior as a target: the mixture of the posteriors of all training examples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vaebench.core import rows_at_once
from vaebench.energies.base import ExactEnergy
from vaebench.energies.target import Split, Target

CHUNK = 2**21  # entries of a (chains, components) block: 16 MiB in float64


@dataclass(frozen=True)
class AggregatePosteriorTarget(Target):
    r"""The aggregate posterior q(z) = 1/N sum_n q(z|x_n) over the training split.

    References:
        ELBO surgery (Hoffman & Johnson, 2016), http://approximateinference.org/accepted/HoffmanJohnson2016.pdf
    """

    needs: ClassVar[frozenset[str]] = frozenset({"posterior", "rate"})  # "rate": the posterior must have a density
    excludes: ClassVar[frozenset[str]] = frozenset({"codes", "groups"})

    def build(self, model: Any = None, split: Split | None = None) -> AggregatePosteriorEnergy:
        """Encode the whole split.

        Raises:
            ValueError: if there is no split, or the posterior is not a diagonal Gaussian.
        """
        self.require(model)
        if split is None:
            raise ValueError(
                "target=aggregate_posterior is built from the training split, got none; setup(model, split)"
            )
        means, log_vars = zip(*posterior_moments(model, split), strict=True)
        return AggregatePosteriorEnergy(torch.cat(means), torch.cat(log_vars))


@torch.no_grad()
def posterior_moments(model: Any, split: Split, batch_size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Encode a split in order.

    Yields:
        Means and log-variances of the posteriors, each (B, D), on the model's device.

    Raises:
        ValueError: if the posterior is not a diagonal Gaussian.
    """
    batch_size = batch_size or rows_at_once(model.shape)
    device = next(model.parameters()).device
    for first in range(0, len(split), batch_size):
        batch = split.batch(torch.arange(first, min(first + batch_size, len(split)))).to(device)
        q = model.posterior(batch.x, batch.y)
        if not hasattr(q, "log_var"):
            raise ValueError(
                f"target=aggregate_posterior: expected a diagonal Gaussian posterior, got {type(q).__name__}; choose "
                "another target, or sampler=gaussian_mixture"
            )
        yield q.mean, q.log_var


class AggregatePosteriorEnergy(ExactEnergy):
    r"""U(z) = -logsumexp_n log N(z; mu_n, diag sigma_n^2) + log N, normalised.

    Each log-density is linear in (z^2, z), so all of them are one matrix product of (S, 2D) with (2D, N), and with the
    weights w = softmax, the gradient is one of (S, N) with (N, 2D). Nothing of size S x N x D exists; components beyond
    a fixed memory are taken in chunks. In float64, because for narrow posteriors the squares nearly cancel.

    Args:
        mean: Shape (N, D).
        log_var: Shape (N, D).
    """

    natural: Tensor
    constant: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, log_var: Tensor) -> None:
        super().__init__()
        if mean.ndim != 2 or mean.shape != log_var.shape or not len(mean):
            raise ValueError(
                f"expected means and log-variances of one shape (N, D), got {tuple(mean.shape)} and "
                f"{tuple(log_var.shape)}"
            )
        mean, log_var = mean.detach().double(), log_var.detach().double()
        precision = (-log_var).exp()
        constant = -0.5 * (mean.square() * precision + log_var + math.log(2 * math.pi)).sum(-1) - math.log(len(mean))
        self.register_buffer("mean", mean)
        self.register_buffer("scale", (0.5 * log_var).exp())
        self.register_buffer("natural", torch.cat([-0.5 * precision, mean * precision], -1).mT.contiguous())
        self.register_buffer("constant", constant)

    def forward(self, x: Tensor) -> Tensor:
        """U in nats, shape (B,)."""
        z = x.to(self.natural)  # cast before squaring: the squares of narrow posteriors nearly cancel in float32
        features = torch.cat([z.square(), z], -1)
        parts = [torch.addmm(c, features, w).logsumexp(-1) for w, c in self._chunks(len(x))]
        return -torch.stack(parts).logsumexp(0).to(x)

    @torch.no_grad()
    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U and its gradient, in closed form."""
        z = x.to(self.natural)
        features = torch.cat([z.square(), z], -1)
        highest = z.new_full((len(z), 1), -math.inf)
        total = torch.zeros_like(highest)
        weighted = torch.zeros_like(features)
        for natural, constant in self._chunks(len(x)):
            logits = torch.addmm(constant, features, natural)
            top = torch.maximum(logits.amax(-1, keepdim=True), highest)
            weights = logits.sub_(top).exp_()
            shrink = torch.exp(highest - top)
            total = total * shrink + weights.sum(-1, keepdim=True)
            # Transposed: a product with few columns is several times slower than one with few rows.
            weighted = torch.addmm((weighted * shrink).mT, natural, weights.mT).mT
            highest = top
        square, linear = (weighted / total).chunk(2, -1)
        energy = -(highest + total.log()).squeeze(-1)
        return energy.to(x), torch.addcmul(linear, z, square, value=2).neg_().to(x)

    def exact_sample(self, num_samples: int) -> Tensor:
        """Draw an example, then from its posterior, shape (N, D)."""
        n = torch.randint(len(self.mean), (num_samples,), device=self.mean.device)
        return self.mean[n] + self.scale[n] * torch.randn_like(self.mean[n])

    def start(self, num_chains: int) -> Tensor:
        """Draw from the density itself, shape (S, D)."""
        return self.exact_sample(num_chains)

    def _chunks(self, num_rows: int) -> Iterator[tuple[Tensor, Tensor]]:
        size = max(1, CHUNK // max(1, num_rows))
        return zip(self.natural.split(size, 1), self.constant.split(size), strict=True)
