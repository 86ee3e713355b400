r"""The VAE with a disentangled inferred prior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import Unpack

from vaebench.core import Batch, Loss
from vaebench.hardware import collective
from vaebench.messages import check_range
from vaebench.models.base import Components, LatentVariableModel


class DIPVAE(LatentVariableModel):
    r"""DIP-VAE (Kumar, Sattigeri and Balakrishnan, 2018).

    Penalises deviations of the aggregate posterior's covariance from the identity:

    .. math:: L = -ELBO + \lambda_{od} \sum_{i \ne j} C_{ij}^2 + \lambda_d \sum_i (C_{ii} - 1)^2      (eq. 6 and 7)

    where C is the covariance over the batch of the posterior means mu (kind I), or that of the draws,
    Cov(mu) + E[diag sigma^2] (kind II). Validation reports the ELBO.

    References:
        Variational Inference of Disentangled Latent Concepts from Unlabeled Observations (Kumar et al., 2018),
        https://arxiv.org/abs/1711.00848;
        Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations (Locatello et al.,
        2019), https://arxiv.org/abs/1811.12359
    Args: those of `LatentVariableModel`, with diagonal Gaussian posteriors, and
        kind: I or II.
        lambda_od: Weight of the covariances, >= 0; 10, of the study's 1, 2, 5, 10, 20 and 50 (Locatello et al., 2019).
        lambda_d: Weight of the variances, >= 0; as there 10 times lambda_od for kind I; for kind II it equals it.
    """

    couples_batch: ClassVar[bool] = True
    min_batch: ClassVar[int] = 2

    def __init__(
        self,
        shape: Sequence[int] | None = None,
        *,
        kind: Literal["I", "II"] = "I",
        lambda_od: float = 10.0,
        lambda_d: float = 100.0,
        **components: Unpack[Components],
    ) -> None:
        super().__init__(shape, **components)
        if kind not in ("I", "II"):
            raise ValueError(f"kind must be I or II; got {kind!r}")
        check_range("lambda_od", lambda_od, at_least=0, below=math.inf)
        check_range("lambda_d", lambda_d, at_least=0, below=math.inf)
        self.kind, self.lambda_od, self.lambda_d = kind, lambda_od, lambda_d

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return the negative ELBO plus the two penalties; nats per example."""
        q, _, _, distortion, rate = self.elbo_terms(batch.x, batch.y)
        C = self._covariance(collective.gather(q.mean), collective.gather(q.variance))
        diagonal = C.diagonal()
        off_diagonal = (C - torch.diag(diagonal)).square().sum()
        on_diagonal = (diagonal - 1).square().sum()
        return Loss.mean(
            distortion + rate + self.lambda_od * off_diagonal + self.lambda_d * on_diagonal,
            distortion=distortion,
            rate=rate,
            off_diagonal=off_diagonal,
            on_diagonal=on_diagonal,
        )

    def _covariance(self, mean: Tensor, variance: Tensor) -> Tensor:
        centred = mean - mean.mean(0)
        C = centred.T @ centred / len(mean)
        return C if self.kind == "I" else C + torch.diag(variance.mean(0))
