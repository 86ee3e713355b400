r"""The VAE with a weighted total correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from vaebench.core import Batch, Loss, Split
from vaebench.messages import check_range
from vaebench.models.base import Components, LatentVariableModel
from vaebench.objectives.aggregate_posterior import Estimator, aggregate_densities


class BetaTCVAE(LatentVariableModel):
    r"""beta-TCVAE (Chen et al., 2018).

    The rate splits into mutual information, total correlation and dimension-wise divergence, each with its own weight:

    .. math:: L = -E_{q(z|x)}[\log p(x|z)] + \alpha \, I(x; z) + \beta \, TC(z) + \gamma \sum_d KL(q(z_d) \| p(z_d))
              (eq. 4)

    at the draw z that is decoded: I = log q(z|x) - log q(z), TC = log q(z) - sum_d log q(z_d), and for the last
    sum_d log q(z_d) - log p(z). q(z) is the aggregate posterior of the training split, estimated from the batch. All
    weights 1 is the ELBO with the rate at that draw. Validation reports the ELBO.

    References:
        Isolating Sources of Disentanglement in Variational Autoencoders (Chen et al., 2018),
        https://arxiv.org/abs/1802.04942
    Args: those of `LatentVariableModel`, with diagonal Gaussian posteriors and a prior of independent dimensions, and
        alpha: Weight of the mutual information, >= 0; 1 as in the paper.
        beta: Weight of the total correlation, >= 0; 6 as in the authors' commands.
        gamma: Weight of the dimension-wise divergence, >= 0; 1 as in the paper.
        estimator: `weighted` by minibatch, as in the paper's experiments, or `stratified`.
    """

    couples_batch: ClassVar[bool] = True
    min_batch: ClassVar[int] = 2
    num_examples: Tensor

    def __init__(
        self,
        shape: Sequence[int] | None = None,
        *,
        alpha: float = 1.0,
        beta: float = 6.0,
        gamma: float = 1.0,
        estimator: Estimator = "weighted",
        **components: Unpack[Components],
    ) -> None:
        super().__init__(shape, **components)
        for name, weight in {"alpha": alpha, "beta": beta, "gamma": gamma}.items():
            check_range(name, weight, at_least=0, below=math.inf)
        if estimator not in ("weighted", "stratified"):
            raise ValueError(f"estimator must be weighted or stratified; got {estimator!r}")
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.estimator: Estimator = estimator
        self.register_buffer("num_examples", torch.tensor(0))

    def before_training(self, train: Split) -> None:
        """Keep the number of training examples, over which q(z) is a mean."""
        self.num_examples.fill_(len(train))

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return the distortion plus the three weighted terms; nats per example.

        Before training the batch stands for the training split.
        """
        q, p, z, distortion, _ = self.elbo_terms(batch.x, batch.y)
        num_examples = int(self.num_examples) or len(batch)
        log_q, log_q_product = aggregate_densities(z, q, num_examples, self.estimator)
        mutual_information = q.log_prob(z) - log_q
        total_correlation = log_q - log_q_product
        dimension_wise = log_q_product - p.log_prob(z)
        return Loss.mean(
            distortion + self.alpha * mutual_information + self.beta * total_correlation + self.gamma * dimension_wise,
            distortion=distortion,
            mutual_information=mutual_information,
            total_correlation=total_correlation,
            dimension_wise_kl=dimension_wise,
        )
