r"""The partially importance-weighted autoencoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from torch import nn
from typing_extensions import Unpack

from vaebench.core import Batch, Loss
from vaebench.messages import check_range
from vaebench.models.base import Components, LatentVariableModel


class PIWAE(LatentVariableModel):
    r"""PIWAE (Rainforth et al., 2018).

    Tight bounds help the decoder and drown the encoder's gradient in noise. So each has its own bound, from the same
    M K draws z_mk ~ q(z|x), with w_mk = p(x, z_mk) / q(z_mk|x):

    .. math::
        L_{encoder} &= -\frac1M \sum_m \log \frac1K \sum_k w_{mk}        (MIWAE, M bounds of K draws)      \\
        L_{decoder} &= -\log \frac1{MK} \sum_{m,k} w_{mk}          (IWAE, one bound of M K draws)

    M = K = 1 is the ELBO, M = 1 the IWAE. Validation reports the ELBO, and the decoder's bound, by which weights are
    compared.

    References:
        Tighter Variational Bounds are Not Necessarily Better (Rainforth et al., 2018), https://arxiv.org/abs/1802.04537
    Args: those of `LatentVariableModel`, and
        num_estimates: M, bounds that the encoder's loss averages, >= 1; 8 of the paper's 64 draws.
        num_samples: K, draws in each of them, >= 1; 8 as in the paper.
    """

    trainer: ClassVar[str] = "coupled"
    best_criterion: ClassVar[tuple[str, str] | None] = ("iwae_bound", "max")

    def __init__(
        self,
        shape: Sequence[int] | None = None,
        *,
        num_estimates: int = 8,
        num_samples: int = 8,
        **components: Unpack[Components],
    ) -> None:
        super().__init__(shape, **components)
        check_range("num_estimates", num_estimates, at_least=1, whole=True)
        check_range("num_samples", num_samples, at_least=1, whole=True)
        self.num_estimates = num_estimates
        self.num_samples = num_samples

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return encoder and decoder."""
        return {
            "encoder": [self.encoder, self.posterior_head],
            "decoder": [self.decoder, self.likelihood_head, self.prior_head],
        }

    def losses(self, batch: Batch, step: int, part: str | None = None) -> dict[str, Loss]:
        """Return the losses of encoder and decoder from one forward pass, nats per example."""
        M, K = self.num_estimates, self.num_samples
        log_w_MKB = self.log_weights(batch.x, M * K, batch.y).unflatten(0, (M, K))
        miwae = (log_w_MKB.logsumexp(1) - math.log(K)).mean(0)
        iwae = log_w_MKB.logsumexp((0, 1)) - math.log(M * K)
        losses = {"encoder": Loss.mean(-miwae, miwae_bound=miwae), "decoder": Loss.mean(-iwae, iwae_bound=iwae)}
        return losses if part is None else {part: losses[part]}

    def validation_loss(self, batch: Batch, step: int) -> Loss:
        """Return the negative ELBO, and the bound of all draws among its terms; nats per example."""
        distortion, rate = self.distortion_and_rate(batch.x, batch.y)
        num_draws = self.num_estimates * self.num_samples
        bound = self.log_weights(batch.x, num_draws, batch.y).logsumexp(0) - math.log(num_draws)
        return Loss.mean(distortion + rate, distortion=distortion, rate=rate, iwae_bound=bound)
