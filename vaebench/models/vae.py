r"""The variational autoencoder."""

from __future__ import annotations

from vaebench.core import Batch, Loss
from vaebench.models.base import LatentVariableModel


class VAE(LatentVariableModel):
    r"""VAE (Kingma and Welling, 2014).

    Minimises the negative evidence lower bound, distortion plus rate:

    .. math:: L = -E_{q(z|x)}[\log p(x|z)] + KL(q(z|x) \| p(z))      (eq. 3)

    with one draw of z for each example and the closed form of the rate.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114
    """

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return the negative ELBO; nats per example."""
        distortion, rate = self.distortion_and_rate(batch.x, batch.y)
        return Loss.mean(distortion + rate, distortion=distortion, rate=rate)
