r"""The VAE with a variational mixture of posteriors as its prior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from vaebench.core import Batch, Loss, Split
from vaebench.distributions.gaussian_mixture import DiagonalGaussianMixture
from vaebench.distributions.posteriors import DiagonalGaussianPosterior
from vaebench.messages import check_range
from vaebench.models.base import Backbone, LatentVariableModel


class VampVAE(LatentVariableModel):
    r"""VampPrior VAE (Tomczak and Welling, 2018).

    The prior is the mean of the posteriors of C pseudo-inputs, which are learned:

    .. math:: L = -E_{q(z|x)}[\log p(x|z)] + KL(q(z|x) \| p(z)), \quad p(z) = \frac1C \sum_{c=1}^C q(z|u_c)      (eq. 9)

    No closed form exists, so the rate is log q(z|x) - log p(z) at the draw that is decoded, as in the authors' code;
    for one example it may be negative.

    References:
        VAE with a VampPrior (Tomczak and Welling, 2018), https://arxiv.org/abs/1705.07120
    Args: those of `LatentVariableModel` but for the prior, with diagonal Gaussian posteriors, and
        num_pseudo_inputs: C, >= 1; 500 as in the paper.
        pseudo_input_init: How they start: `random` draws each pixel from N(mean, std^2), `data` takes examples of the
            training split with that noise.
        pseudo_input_mean: Mean of a pixel at the start; 0.05 and, next, 0.01 are the authors' for MNIST.
        pseudo_input_std: Standard deviation of a pixel at the start, >= 0.
    """

    def __init__(
        self,
        shape: Sequence[int] | None = None,
        *,
        num_pseudo_inputs: int = 500,
        pseudo_input_init: Literal["random", "data"] = "random",
        pseudo_input_mean: float = 0.05,
        pseudo_input_std: float = 0.01,
        posterior: DiagonalGaussianPosterior = DiagonalGaussianPosterior(),  # noqa: B008 - a frozen description
        **components: Unpack[Backbone],
    ) -> None:
        super().__init__(shape, posterior=posterior, **components)
        check_range("num_pseudo_inputs", num_pseudo_inputs, at_least=1, whole=True)
        check_range("pseudo_input_std", pseudo_input_std, at_least=0, below=math.inf)
        if pseudo_input_init not in ("random", "data"):
            raise ValueError(f"pseudo_input_init must be random or data; got {pseudo_input_init!r}")
        self.pseudo_input_init = pseudo_input_init
        self.pseudo_input_std = pseudo_input_std
        noise = pseudo_input_std * torch.randn(num_pseudo_inputs, *self.shape)
        self.pseudo_inputs = nn.Parameter(pseudo_input_mean + noise)

    def prior(self, y: Tensor | None = None) -> DiagonalGaussianMixture:
        """Return the mixture of the pseudo-inputs' posteriors, which are clamped to [0, 1]: event shape (D,)."""
        return DiagonalGaussianMixture(*self.posterior(self.pseudo_inputs.clamp(0, 1)))

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return the negative ELBO; nats per example."""
        distortion, rate = self.distortion_and_rate(batch.x, batch.y)
        return Loss.mean(distortion + rate, distortion=distortion, rate=rate)

    @torch.no_grad()
    def before_training(self, train: Split) -> None:
        """Start the pseudo-inputs from examples, where `pseudo_input_init` says so.

        Raises:
            ValueError: if there are fewer examples than pseudo-inputs.
        """
        if self.pseudo_input_init != "data":
            return
        num = len(self.pseudo_inputs)
        if len(train) < num:
            raise ValueError(f"num_pseudo_inputs must be at most the number of examples, {len(train)}; got {num}")
        x = train.batch(torch.randperm(len(train))[:num]).x.to(self.pseudo_inputs)
        self.pseudo_inputs.copy_(x + self.pseudo_input_std * torch.randn_like(x))
