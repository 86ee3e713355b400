r"""FactorVAE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from vaebench.core import Batch, Loss
from vaebench.hardware import collective
from vaebench.messages import check_range
from vaebench.models.base import Components, LatentVariableModel
from vaebench.networks import MLP, Network
from vaebench.networks.discriminator import Discriminator


class FactorVAE(LatentVariableModel):
    r"""FactorVAE (Kim and Mnih, 2018).

    The ELBO less the total correlation of the aggregate posterior, whose density ratio a discriminator estimates, D(z)
    being the probability that z came from q(z) rather than from the product of its marginals:

    .. math::
        L &= -E_{q(z|x)}[\log p(x|z)] + KL(q(z|x) \| p(z)) + \gamma \, TC(z)      (eq. 2)  \\
        TC(z) &= KL(q(z) \| \textstyle\prod_d q(z_d)) \approx E_{q(z)}[\log D(z) - \log (1 - D(z))]      \\
        L_{discriminator} &= -\tfrac12 E_{q(z)}[\log D(z)] - \tfrac12 E_{\prod_d q(z_d)}[\log (1 - D(z))]

    Draws from the product of marginals are codes of a second batch, each dimension permuted on its own (Algorithm 1).

    References:
        Disentangling by Factorising (Kim and Mnih, 2018), https://arxiv.org/abs/1802.05983
        Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations (Locatello et al.,
        2019), https://arxiv.org/abs/1811.12359
    Deviations:
        One batch serves both of Algorithm 2: the VAE's step takes all of it; for the discriminator's, the examples at
        even positions are the first batch, those at odd ones the second. One logit takes the place of two, whose
        difference it is. The slope of the leaky ReLU is 0.01, where Locatello et al. have 0.2. The trainer's optimiser
        serves both parts. The paper has Adam with learning rate 1e-4 for both, and betas 0.5 and 0.9 for the
        discriminator: `trainer.learning_rate=1e-4 trainer.parts={discriminator:{optimizer_args:{betas:[0.5,0.9]}}}`.
    Args: those of `LatentVariableModel`, whose 10 latent dimensions are also the paper's, and
        discriminator: Description of the discriminator's trunk; six layers of 1000 as in the paper.
        gamma: Weight of the total correlation, >= 0. What suits depends on the data set; 10 is the smallest value of
            the study by Locatello et al. (2019), whose largest is 100.
    """

    trainer: ClassVar[str] = "adversarial"
    couples_batch: ClassVar[bool] = True
    min_batch: ClassVar[int] = 2  # one half is encoded, the other permuted

    def __init__(
        self,
        shape: Sequence[int] | None = None,
        *,
        discriminator: Network = MLP(hidden_dims=(1000,) * 6, activation="leaky_relu"),  # noqa: B008 - frozen
        gamma: float = 10.0,
        **components: Unpack[Components],
    ) -> None:
        super().__init__(shape, **components)
        check_range("gamma", gamma, at_least=0, below=math.inf)
        self.gamma = gamma
        self.discriminator = Discriminator(discriminator, self.latent_shape)

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return the VAE and the discriminator."""
        vae = [self.encoder, self.posterior_head, self.decoder, self.likelihood_head, self.prior_head]
        return {"vae": vae, "discriminator": [self.discriminator]}

    def losses(self, batch: Batch, step: int, part: str | None = None) -> dict[str, Loss]:
        """Return the losses of VAE and discriminator, nats per example.

        Raises:
            ValueError: if the whole batch is one example, which has no second half to permute.
        """
        losses = {}
        if part == "discriminator":
            z = self.posterior(batch.x, batch.y).rsample()
        else:
            _, _, z, distortion, rate = self.elbo_terms(batch.x, batch.y)
            total_correlation = self.discriminator(z)  # log D(z) - log(1 - D(z))
            losses["vae"] = Loss.mean(
                distortion + rate + self.gamma * total_correlation,
                distortion=distortion,
                rate=rate,
                total_correlation=total_correlation,
            )
        if part in (None, "discriminator"):
            losses["discriminator"] = self._discriminator_loss(z.detach())
        return losses

    def _discriminator_loss(self, z: Tensor) -> Loss:
        """Score codes (B, D): those at even positions of the whole batch as they are, the others permuted."""
        z_all = collective.gather(z)
        if len(z_all) < 2:
            raise ValueError(
                "FactorVAE needs at least two examples in every batch, got one: the discriminator compares one half "
                "with the other; choose trainer.batch_size so that the last batch of an epoch is larger"
            )
        second = _permute_dims(z_all[1::2])
        start = _first_row_in_gathered(collective.current_shard())
        position = torch.arange(start, start + len(z), device=z.device)
        is_first = position % 2 == 0
        logit = self.discriminator(torch.where(is_first[:, None], z, second[position // 2 % len(second)]))
        # Both halves weigh the same, even if one is an example larger.
        weight = len(z_all) / (2 * torch.where(is_first, len(z_all) - len(second), len(second)))
        cross_entropy = weight * F.softplus(torch.where(is_first, -logit, logit))
        is_right = weight * ((logit > 0) == is_first)
        return Loss.mean(cross_entropy, accuracy=is_right)


def _first_row_in_gathered(shard: collective.Shard | None) -> int:
    """Where this process's rows begin among those that all processes hold now."""
    if shard is None:
        return 0
    if shard.together is None:
        return shard.start
    return sum(stop - start for start, stop in shard.together if start < shard.start)


def _permute_dims(z: Tensor) -> Tensor:
    """Permute each dimension of z (B, D) over the batch on its own: draws from the product of the marginals."""
    rows = torch.stack([collective.permutation(len(z), device=z.device) for _ in range(z.shape[1])], dim=-1)
    return z.gather(0, rows)
