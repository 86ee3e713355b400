r"""The Wasserstein autoencoder, with the maximum mean discrepancy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from typing_extensions import Unpack

from vaebench.core import Batch, Loss
from vaebench.distributions.point_mass import NO_DENSITY, DeterministicPosterior
from vaebench.distributions.posteriors import Posterior
from vaebench.hardware import collective
from vaebench.messages import check_range
from vaebench.models.base import Components, LatentVariableModel
from vaebench.objectives.mmd import imq_mmd


class WAEMMD(LatentVariableModel):
    r"""WAE-MMD (Tolstikhin et al., 2018).

    .. math:: L = E_{q(z|x)}[c(x, G(z))] + \lambda \, MMD(q(z), p(z)), \quad c(x, G(z)) = -\log p(x|z)
              (Algorithm 2)

    Only the aggregate posterior is matched to the prior. Each posterior is free, by default a point, so that there is
    neither a rate nor an ELBO, and validation reports the distortion.

    References:
        Wasserstein Auto-Encoders (Tolstikhin et al., 2018), https://arxiv.org/abs/1711.01558
    Deviations:
        -log p(x|z) in place of the squared error: with a Gaussian likelihood half of it, up to its scale and constant.
    Args: those of `LatentVariableModel`, and
        lambda_mmd: lambda, >= 0; 10 as in the paper's MNIST experiment.
        posterior: Description of q(z|x); deterministic as in the paper.
    """

    couples_batch: ClassVar[bool] = True
    min_batch: ClassVar[int] = 2

    def __init__(  # type: ignore[misc]  # names a component, for its default
        self,
        shape: Sequence[int] | None = None,
        *,
        lambda_mmd: float = 10.0,
        posterior: Posterior = DeterministicPosterior(),  # noqa: B008 - a frozen description
        **components: Unpack[Components],
    ) -> None:
        super().__init__(shape, posterior=posterior, **components)
        check_range("lambda_mmd", lambda_mmd, at_least=0, below=math.inf)
        self.lambda_mmd = lambda_mmd
        if isinstance(posterior, DeterministicPosterior):
            self.capabilities = WAEMMD.capabilities - {"rate"}  # type: ignore[misc]
            self.why_not = {**WAEMMD.why_not, "rate": NO_DENSITY}  # type: ignore[misc]

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return the distortion plus the weighted MMD; nats per example."""
        z = self.posterior(batch.x, batch.y).rsample()
        distortion = -self.likelihood(z, batch.y).log_prob(batch.x)
        z_prior = self.draw_from_prior(len(batch), batch.y)
        mmd = imq_mmd(collective.gather(z), collective.gather(z_prior), 2.0 * self.latent_dim)
        return Loss.mean(distortion + self.lambda_mmd * mmd, distortion=distortion, mmd=mmd)

    def validation_loss(self, batch: Batch, step: int) -> Loss:
        """Return the negative ELBO where q(z|x) has a density, otherwise the distortion; nats per example."""
        if "rate" in self.capabilities:
            return super().validation_loss(batch, step)
        z = self.posterior(batch.x, batch.y).rsample()
        distortion = -self.likelihood(z, batch.y).log_prob(batch.x)
        return Loss.mean(distortion, distortion=distortion)
