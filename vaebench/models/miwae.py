r"""The multiply importance weighted autoencoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from typing_extensions import Unpack

from vaebench.core import Batch, Loss
from vaebench.messages import check_range
from vaebench.models.base import Components, LatentVariableModel


class MIWAE(LatentVariableModel):
    r"""MIWAE (Rainforth et al., 2018).

    The mean of M importance weighted bounds of K draws each: between the ELBO (K = 1) and the IWAE (M = 1) in
    tightness, with less noise in the encoder's gradient than the IWAE of as many draws:

    .. math:: L = -\frac1M \sum_{m=1}^M \log \frac1K \sum_{k=1}^K w_{mk}, \quad
              w_{mk} = p(x, z_{mk}) / q(z_{mk}|x)      (section 5)

    Validation reports the ELBO, and the bound, by which weights are compared.

    References:
        Tighter Variational Bounds are Not Necessarily Better (Rainforth et al., 2018), https://arxiv.org/abs/1802.04537
    Args: those of `LatentVariableModel`, and
        num_estimates: M, >= 1; 8 of the paper's 64 draws.
        num_samples: K, >= 1; 8 as in the paper.
    """

    best_criterion: ClassVar[tuple[str, str] | None] = ("miwae_bound", "max")

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
        self.num_estimates, self.num_samples = num_estimates, num_samples

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return the negative bound; nats per example."""
        bound = self._bound(batch)
        return Loss.mean(-bound, miwae_bound=bound)

    def validation_loss(self, batch: Batch, step: int) -> Loss:
        """Return the negative ELBO, and the bound among its terms; nats per example."""
        distortion, rate = self.distortion_and_rate(batch.x, batch.y)
        return Loss.mean(distortion + rate, distortion=distortion, rate=rate, miwae_bound=self._bound(batch))

    def _bound(self, batch: Batch) -> Tensor:
        M, K = self.num_estimates, self.num_samples
        log_w_MKB = self.log_weights(batch.x, M * K, batch.y).unflatten(0, (M, K))
        return (log_w_MKB.logsumexp(1) - math.log(K)).mean(0)
