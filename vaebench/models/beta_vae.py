r"""The beta-VAE, with any schedule of beta, and with free bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor
from typing_extensions import Unpack

from vaebench.core import Batch, Loss
from vaebench.messages import check_range
from vaebench.models.aliases import also_takes, beta_of
from vaebench.models.base import Components, LatentVariableModel
from vaebench.objectives.divergences import free_bits_rate, rate_per_dimension
from vaebench.schedules import Schedule, as_schedule, value_at


class BetaVAE(LatentVariableModel):
    r"""beta-VAE (Higgins et al., 2017).

    .. math:: L = -E_{q(z|x)}[\log p(x|z)] + \beta(t) \, KL(q(z|x) \| p(z))      (eq. 4)

    with t the optimiser's step, from 0. beta = 1 is the VAE; a rise from 0 is warm-up (`model/beta=linear`, and
    others). Validation reports the ELBO, at beta = 1.

    With `free_bits` the first lambda nats of each latent dimension cost nothing. Of the two published forms, `batch`
    bounds the mean over the batch, and `example` each example:

    .. math:: \sum_d \max(\lambda, \frac1B \sum_b R_{bd}) \qquad \text{or} \qquad \sum_d \max(\lambda, R_{bd}), \quad
              R_{bd} = KL(q(z_d|x_b) \| p(z_d))

    References:
        beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework (Higgins et al., 2017),
        https://openreview.net/forum?id=Sy2fzU9gl;
        Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016),
        https://arxiv.org/abs/1606.04934 (appendix C.8, free bits over the batch);
        A Surprisingly Effective Fix for Deep Latent Variable Modeling of Text (Li et al., 2019),
        https://arxiv.org/abs/1909.00868 (free bits of each example)
    Args: those of `LatentVariableModel`, and
        beta: A number or a schedule, >= 0; 4, that of the paper's experiment with 2D shapes. In Python also as
            `beta_default` with `beta_warmup_steps`, the steps of a linear rise to it.
        free_bits: lambda in nats for each latent dimension, >= 0; 0 leaves the rate as it is.
        free_bits_of: What lambda bounds from below: the mean of a `batch`, or each `example`.
    """

    @also_takes(beta_of)
    def __init__(
        self,
        shape: Sequence[int] | None = None,
        *,
        beta: float | Schedule = 4.0,
        free_bits: float = 0.0,
        free_bits_of: Literal["batch", "example"] = "batch",
        **components: Unpack[Components],
    ) -> None:
        super().__init__(shape, **components)
        check_range("free_bits", free_bits, at_least=0, below=math.inf)
        if free_bits_of not in ("batch", "example"):
            raise ValueError(f"free_bits_of must be batch or example; got {free_bits_of!r}")
        self.beta = as_schedule(beta)
        for step in (0, 10**9):
            check_range("beta", self.beta(step), at_least=0, below=math.inf)
        self.free_bits = free_bits
        self.free_bits_of = free_bits_of
        self.couples_batch = free_bits > 0 and free_bits_of == "batch"  # type: ignore[misc]

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return D + beta(step) R; nats per example."""
        q, p, _, distortion, rate = self.elbo_terms(batch.x, batch.y)
        penalty, logs = self.penalty(q, p, rate, step)
        return Loss.mean(distortion + penalty, distortion=distortion, rate=rate, **logs)

    def penalty(
        self, q: Any, p: Any, rate: Tensor, step: int | None = None, beta: float | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return beta * R, of shape (B,) or a scalar, and `beta`.

        Raises:
            ValueError: if beta changes with the step, and none is given.
        """
        beta = value_at("beta", self.beta, step) if beta is None else beta
        if self.free_bits:
            rate = free_bits_rate(rate_per_dimension(q, p), self.free_bits, over=self.free_bits_of)
        return beta * rate, {"beta": rate.new_tensor(beta)}
