r"""The importance weighted autoencoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from typing_extensions import Unpack

from vaebench.core import Batch, Loss
from vaebench.messages import check_range
from vaebench.models.base import Components, LatentVariableModel


class IWAE(LatentVariableModel):
    r"""IWAE (Burda, Grosse and Salakhutdinov, 2016).

    Maximises a bound that is tighter the more draws it has:

    .. math:: L_K = -E_{z_k \sim q(z|x)} \Big[ \log \frac1K \sum_{k=1}^K w_k \Big], \quad
              w_k = p(x, z_k) / q(z_k|x)      (eq. 8)

    K = 1 is the ELBO. Validation reports the ELBO, and the bound, by which weights are compared.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519
    Args: those of `LatentVariableModel`, and
        num_samples: K, >= 1; 5, of the paper's 1, 5 and 50. A step costs K passes through the decoder.
    """

    best_criterion: ClassVar[tuple[str, str] | None] = ("iwae_bound", "max")

    def __init__(
        self, shape: Sequence[int] | None = None, *, num_samples: int = 5, **components: Unpack[Components]
    ) -> None:
        super().__init__(shape, **components)
        check_range("num_samples", num_samples, at_least=1, whole=True)
        self.num_samples = num_samples

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return the negative bound; nats per example."""
        bound = self._bound(batch)
        return Loss.mean(-bound, iwae_bound=bound)

    def validation_loss(self, batch: Batch, step: int) -> Loss:
        """Return the negative ELBO, and the bound among its terms; nats per example."""
        distortion, rate = self.distortion_and_rate(batch.x, batch.y)
        return Loss.mean(distortion + rate, distortion=distortion, rate=rate, iwae_bound=self._bound(batch))

    def _bound(self, batch: Batch) -> Tensor:
        log_w_KB = self.log_weights(batch.x, self.num_samples, batch.y)
        return log_w_KB.logsumexp(0) - math.log(self.num_samples)
