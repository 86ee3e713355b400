r"""The combination importance weighted autoencoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from typing_extensions import Unpack

from vaebench.core import Batch, Loss
from vaebench.messages import check_range
from vaebench.models.base import Components, LatentVariableModel


class CIWAE(LatentVariableModel):
    r"""CIWAE (Rainforth et al., 2018).

    A convex combination of the ELBO and the importance weighted bound, from the same K draws:

    .. math:: L = -\beta \frac1K \sum_k \log w_k - (1 - \beta) \log \frac1K \sum_k w_k, \quad
              w_k = p(x, z_k) / q(z_k|x)      (section 5)

    beta = 0 is the IWAE, beta = 1 the ELBO. Validation reports the ELBO, and the combination, by which weights are
    compared.

    References:
        Tighter Variational Bounds are Not Necessarily Better (Rainforth et al., 2018), https://arxiv.org/abs/1802.04537
    Args: those of `LatentVariableModel`, and
        beta: Weight of the ELBO, in [0, 1]; 0.05, one of the two values in the paper's table 1, the other is 0.5.
        num_samples: K, >= 1; 64 as in the paper.
    """

    best_criterion: ClassVar[tuple[str, str] | None] = ("ciwae_bound", "max")

    def __init__(
        self,
        shape: Sequence[int] | None = None,
        *,
        beta: float = 0.05,
        num_samples: int = 64,
        **components: Unpack[Components],
    ) -> None:
        super().__init__(shape, **components)
        check_range("beta", beta, at_least=0, at_most=1)
        check_range("num_samples", num_samples, at_least=1, whole=True)
        self.beta, self.num_samples = beta, num_samples

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return the negative combination; nats per example."""
        bound = self._bound(batch)
        return Loss.mean(-bound, ciwae_bound=bound)

    def validation_loss(self, batch: Batch, step: int) -> Loss:
        """Return the negative ELBO, and the combination among its terms; nats per example."""
        distortion, rate = self.distortion_and_rate(batch.x, batch.y)
        return Loss.mean(distortion + rate, distortion=distortion, rate=rate, ciwae_bound=self._bound(batch))

    def _bound(self, batch: Batch) -> Tensor:
        log_w_KB = self.log_weights(batch.x, self.num_samples, batch.y)
        iwae = log_w_KB.logsumexp(0) - math.log(self.num_samples)
        return self.beta * log_w_KB.mean(0) + (1 - self.beta) * iwae
