r"""The VAE whose decoder is a diffusion."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from typing_extensions import Unpack

from vaebench.core import Batch, Loss
from vaebench.distributions.denoising_diffusion import DenoisingDiffusion
from vaebench.models.base import Components, LatentVariableModel
from vaebench.objectives.divergences import rate as rate_of


class DiffusionVAE(LatentVariableModel):
    r"""DiffuseVAE (Pandey et al., 2022) with a jointly trained diffusion.

    .. math:: L = -E_{q(z|x)}[B(x|z)] + KL(q(z|x) \| p(z)), \quad B(x|z) \le \log p(x|z)

    B is the variational bound of `likelihood`, which makes -L a bound on log p(x). With `likelihood.weighting=simple`
    B is minus the unweighted squared error of the predicted noise, which is not a bound: the model then has no rate,
    and no metric prints nats of it.

    `decode`, `sample` and the images of a run show the end of the reverse process from one fixed noise, so that they
    differ by z alone; `likelihood(z).sample()` draws new noise.

    References:
        DiffuseVAE: Efficient, Controllable and High-Fidelity Generation from Low-Dimensional Latents (Pandey et al.,
        2022), https://arxiv.org/abs/2201.00308;
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), https://arxiv.org/abs/2006.11239
    Deviations:
        All parts are trained together; the paper trains a VAE first, and then the diffusion on its reconstructions.
    Args: those of `LatentVariableModel`, whose likelihood is a `DenoisingDiffusion`.
    """

    def __init__(self, shape: Sequence[int], **components: Unpack[Components]) -> None:
        super().__init__(shape, **components)
        head = self.likelihood_head
        if not isinstance(head, DenoisingDiffusion):
            raise ValueError(
                f"likelihood: DiffusionVAE needs likelihood=denoising_diffusion, got {type(head).__name__}; for other "
                "likelihoods choose model=vae"
            )
        if head.weighting == "simple":
            self.capabilities = self.capabilities - {"rate"}  # type: ignore[misc]
            self.why_not = {"rate": "with likelihood.weighting=simple its loss does not bound log p(x)"}  # type: ignore[misc]

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return the negative bound, or with simple weights the squared error plus the rate; nats per example."""
        q, p = self.posterior(batch.x, batch.y), self.prior(batch.y)
        z: Tensor = q.rsample()
        distortion = -self.likelihood(z, batch.y).log_prob(batch.x)
        rate, _ = rate_of(q, p, z)
        return Loss.mean(distortion + rate, distortion=distortion, rate=rate)
