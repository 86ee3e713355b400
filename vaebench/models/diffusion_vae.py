r"""The VAE whose decoder is a diffusion."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from vaebench.core import Batch, Loss
from vaebench.distributions.denoising_diffusion import DenoisingDiffusion
from vaebench.distributions.likelihoods import Gaussian
from vaebench.messages import check_range
from vaebench.models.base import Components, LatentVariableModel
from vaebench.objectives.divergences import rate as rate_of


class DiffusionVAE(LatentVariableModel):
    r"""DiffuseVAE (Pandey et al., 2022) with a jointly trained diffusion.

    .. math:: L = -E_{q(z|x)}[B(x|z) + \lambda \log N(x; \hat x(z), \sigma^2 I)] + KL(q(z|x) \| p(z)), \quad
        B(x|z) \le \log p(x|z)

    B is the variational bound of `likelihood`, with which lambda = 0 makes -L a bound on log p(x): the one of which
    validation and metrics tell, whatever lambda. With `likelihood.weighting=simple` B is minus the unweighted squared
    error of the predicted noise, which is not a bound: the model then has no rate, and no metric prints nats of it.

    The second term is the paper's first stage, a VAE whose decoder's picture x_hat the diffusion is told. Without it a
    diffusion that sees the whole of x_t learns p(x) by itself and leaves z unused: on the digits the rate falls to 1
    nat, and reconstructions show other digits.

    p(x|z) has no mean in closed form. `sample`, `reconstruct` and the pictures made of them show a draw of it, each
    from noise of its own; `decode`, and with it paths through the latent space, the end of the reverse process from one
    fixed noise, so that neighbours differ by z alone.

    References:
        DiffuseVAE: Efficient, Controllable and High-Fidelity Generation from Low-Dimensional Latents (Pandey et al.,
        2022), https://arxiv.org/abs/2201.00308;
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), https://arxiv.org/abs/2006.11239;
        Simple and effective VAE training with calibrated decoders (Rybkin et al., 2021),
        https://arxiv.org/abs/2006.13202, for the learned sigma
    Deviations:
        All parts are trained together; the paper trains a VAE first, and then the diffusion on its reconstructions. Its
        sigma is fixed, and its diffusion is told x_hat alone, without the further channels of `likelihood.context_dim`.
    Args: those of `LatentVariableModel`, whose likelihood is a `DenoisingDiffusion`, and
        reconstruction_weight: lambda, >= 0; 0 trains the bound alone.
    """

    def __init__(
        self, shape: Sequence[int], *, reconstruction_weight: float = 1.0, **components: Unpack[Components]
    ) -> None:
        super().__init__(shape, **components)
        check_range("reconstruction_weight", reconstruction_weight, at_least=0, below=math.inf)
        head = self.likelihood_head
        if not isinstance(head, DenoisingDiffusion):
            raise ValueError(
                f"likelihood: DiffusionVAE needs likelihood=denoising_diffusion, got {type(head).__name__}; for other "
                "likelihoods choose model=vae"
            )
        if head.weighting == "simple":
            self.capabilities = self.capabilities - {"rate"}  # type: ignore[misc]
            self.why_not = {"rate": "with likelihood.weighting=simple its loss does not bound log p(x)"}  # type: ignore[misc]
        self.reconstruction_weight = reconstruction_weight
        self.first_stage = Gaussian(0.25, learn_scale=True) if reconstruction_weight > 0 else None

    def picture(self, z: Tensor, y: Tensor | int | None = None) -> Tensor:
        """Draw from p(x|z) for z (N, D), shape (N, *shape)."""
        return self.likelihood(z, self._labels(y, len(z))).sample()

    @torch.no_grad()
    def reconstruct(self, x: Tensor, deterministic: bool = False, y: Tensor | int | None = None) -> Tensor:
        """Encode x of shape (B, *shape), and draw from p(x|z).

        Where `deterministic`, z is the mean of q, and each draw's noise belongs to its original: the same in any batch.
        """
        if not deterministic:
            return super().reconstruct(x, deterministic, y)
        x = self._batched(x)
        p: Any = self.likelihood(self.encode(x, y).mean, self._labels(y, len(x)))
        seeds = [zlib.crc32(row.double().cpu().numpy().tobytes()) for row in x]
        return p.base_dist.sample_by_seeds(seeds)

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return L, in which -B is the bound's negative or, with simple weights, the squared error; nats."""
        q, p = self.posterior(batch.x, batch.y), self.prior(batch.y)
        z: Tensor = q.rsample()
        p_x: Any = self.likelihood(z, batch.y)
        distortion = -p_x.log_prob(batch.x)
        rate, _ = rate_of(q, p, z)
        if self.first_stage is None:
            return Loss.mean(distortion + rate, distortion=distortion, rate=rate)
        reconstruction = -self.first_stage(p_x.base_dist.reconstruction, len(self.shape)).log_prob(batch.x)
        total = distortion + rate + self.reconstruction_weight * reconstruction
        return Loss.mean(total, distortion=distortion, rate=rate, reconstruction=reconstruction)
