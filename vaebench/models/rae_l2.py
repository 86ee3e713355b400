r"""The regularised autoencoder with weight decay of the decoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from vaebench.core import Batch, Loss
from vaebench.distributions.point_mass import DeterministicPosterior
from vaebench.messages import check_range
from vaebench.models.base import Backbone, LatentVariableModel


class RAEL2(LatentVariableModel):
    r"""RAE-L2 (Ghosh et al., 2020).

    A deterministic autoencoder whose codes are kept small and whose decoder is kept smooth:

    .. math:: L = -\log p(x|z) + \beta \tfrac12 \|z\|^2 + \lambda \|\theta_{decoder}\|^2, \quad z = f(x)
              (the paper's L_{REC} + \beta L_Z + \lambda L_{REG}, with the Tikhonov regulariser)

    The last term is part of the loss, so it holds whichever optimiser is chosen. The encoder's loss is the first two
    terms, the decoder's the first and the last: each is the gradient of L in its own parameters.

    There is no prior. Samples come from a density fitted to the codes after training, in the paper a Gaussian mixture
    of 10 components: `sampler=gaussian_mixture`.

    References:
        From Variational to Deterministic Autoencoders (Ghosh et al., 2020), https://arxiv.org/abs/1903.12436
    Deviations:
        -log p(x|z) in place of the squared error: the same with a Gaussian likelihood, up to its scale and constant.
        All parameters of the decoder decay, biases too; in the authors' code for MNIST only the weights of its
        transposed convolutions do.
    Args: those of `LatentVariableModel` but for posterior and prior, and
        beta: Weight of the codes' norm, >= 0. The authors' MNIST experiment (1e-4, on the mean over 16 dimensions, with
            the mean squared error over 32 x 32 pixels) in the units of a sum with scale 1: 1e-4 * 1024 / 16.
        decoder_weight_decay: lambda, >= 0. The authors' 1e-7 for MNIST, likewise: 1e-7 * 1024 / 2.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset({"posterior", "likelihood"})
    why_not: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            **LatentVariableModel.why_not,
            "rate": "it is a deterministic autoencoder, so there is neither a density q(z|x) nor a prior",
            "prior": "it is a deterministic autoencoder; fit a density to its codes with sampler=gaussian_mixture",
        }
    )
    trainer: ClassVar[str] = "coupled"

    def __init__(
        self,
        shape: Sequence[int] | None = None,
        *,
        beta: float = 6.4e-3,
        decoder_weight_decay: float = 5.12e-5,
        **components: Unpack[Backbone],
    ) -> None:
        super().__init__(shape, posterior=DeterministicPosterior(), **components)
        check_range("beta", beta, at_least=0, below=math.inf)
        check_range("decoder_weight_decay", decoder_weight_decay, at_least=0, below=math.inf)
        self.beta = beta
        self.decoder_weight_decay = decoder_weight_decay

    def prior(self, y: Tensor | None = None) -> Any:
        """Refuse.

        Raises:
            ValueError: always, naming the sampler that takes its place.
        """
        self.require("prior")

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return encoder and decoder."""
        return {
            "encoder": [self.encoder, self.posterior_head],
            "decoder": [self.decoder, self.likelihood_head, self.prior_head],
        }

    def losses(self, batch: Batch, step: int, part: str | None = None) -> dict[str, Loss]:
        """Return the losses of encoder and decoder from one forward pass, nats per example."""
        distortion, code_norm = self._distortion_and_code_norm(batch)
        weight_norm = torch.stack([p.square().sum() for p in self.decoder.parameters()]).sum()
        losses = {
            "encoder": Loss.mean(distortion + self.beta * code_norm, distortion=distortion, code_norm=code_norm),
            "decoder": Loss.mean(distortion + self.decoder_weight_decay * weight_norm, weight_norm=weight_norm),
        }
        return losses if part is None else {part: losses[part]}

    def validation_loss(self, batch: Batch, step: int) -> Loss:
        """Return the terms that depend on the data: distortion and the codes' norm; nats per example."""
        distortion, code_norm = self._distortion_and_code_norm(batch)
        return Loss.mean(distortion + self.beta * code_norm, distortion=distortion, code_norm=code_norm)

    def _distortion_and_code_norm(self, batch: Batch) -> tuple[Tensor, Tensor]:
        z = self.posterior(batch.x, batch.y).mean
        return -self.likelihood(z, batch.y).log_prob(batch.x), 0.5 * z.square().sum(-1)
