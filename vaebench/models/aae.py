r"""The adversarial autoencoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import nn
from typing_extensions import Unpack

from vaebench.core import Batch, Loss
from vaebench.distributions.point_mass import NO_DENSITY, DeterministicPosterior
from vaebench.distributions.posteriors import Posterior
from vaebench.messages import check_range
from vaebench.models.base import Components, LatentVariableModel
from vaebench.networks import MLP, Network
from vaebench.networks.discriminator import Discriminator


class AAE(LatentVariableModel):
    r"""Adversarial autoencoder (Makhzani et al., 2016).

    A discriminator D in the latent space, D(z) being the probability that z came from the prior, takes the place of
    the rate: the encoder makes the aggregate posterior q(z) look like p(z), while both networks reconstruct.

    .. math::
        L_{autoencoder} &= -E_{q(z|x)}[\log p(x|z)] - w \, E_{q(z)}[\log D(z)]            \\
        L_{discriminator} &= -E_{p(z)}[\log D(z)] - E_{q(z)}[\log (1 - D(z))]

    The encoder's term is the non-saturating form of the game (Goodfellow et al., 2014). With a deterministic encoder,
    the default, q(z|x) has no density: there is neither a rate nor an ELBO, and validation reports the distortion. With
    `posterior: diagonal_gaussian` both exist, although they were not trained.

    References:
        Adversarial Autoencoders (Makhzani et al., 2016), https://arxiv.org/abs/1511.05644
        Generative Adversarial Networks (Goodfellow et al., 2014), https://arxiv.org/abs/1406.2661
    Deviations:
        Reconstruction and confusion of the discriminator are one step on the sum of both terms, before the
        discriminator's; in the paper they are two steps, with the discriminator's between them. The prior is N(0, I),
        where the paper's MNIST experiment has a standard deviation of 5.
    Args: those of `LatentVariableModel`, and
        discriminator: Description of the discriminator's trunk; two layers of 1000 as in the paper (appendix A.1).
        adversarial_weight: w, >= 0; 1, ours.
        posterior: Description of q(z|x); deterministic, the first of the paper's three kinds (section 2).
    """

    trainer: ClassVar[str] = "adversarial"
    best_criterion: ClassVar[tuple[str, str] | None] = ("distortion", "min")

    def __init__(  # type: ignore[misc]  # names a component, for its default
        self,
        shape: Sequence[int] | None = None,
        *,
        discriminator: Network = MLP(hidden_dims=(1000, 1000)),  # noqa: B008 - a frozen description
        adversarial_weight: float = 1.0,
        posterior: Posterior = DeterministicPosterior(),  # noqa: B008
        **components: Unpack[Components],
    ) -> None:
        super().__init__(shape, posterior=posterior, **components)
        check_range("adversarial_weight", adversarial_weight, at_least=0, below=math.inf)
        self.adversarial_weight = adversarial_weight
        self.discriminator = Discriminator(discriminator, self.latent_shape)
        if isinstance(posterior, DeterministicPosterior):
            self.capabilities = AAE.capabilities - {"rate"}  # type: ignore[misc]
            self.why_not = {**AAE.why_not, "rate": NO_DENSITY}  # type: ignore[misc]

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return the autoencoder and the discriminator."""
        autoencoder = [self.encoder, self.posterior_head, self.decoder, self.likelihood_head, self.prior_head]
        return {"autoencoder": autoencoder, "discriminator": [self.discriminator]}

    def losses(self, batch: Batch, step: int, part: str | None = None) -> dict[str, Loss]:
        """Return the losses of autoencoder and discriminator, nats per example."""
        losses = {}
        z = self.posterior(batch.x, batch.y).rsample()
        if part in (None, "autoencoder"):
            distortion = -self.likelihood(z, batch.y).log_prob(batch.x)
            confusion = F.softplus(-self.discriminator(z))  # -log D(z)
            losses["autoencoder"] = Loss.mean(
                distortion + self.adversarial_weight * confusion, distortion=distortion, confusion=confusion
            )
        if part in (None, "discriminator"):
            z_prior = self.draw_from_prior(len(batch), batch.y)
            of_prior = F.softplus(-self.discriminator(z_prior))  # -log D(z), z ~ p(z)
            of_posterior = F.softplus(self.discriminator(z.detach()))  # -log(1 - D(z)), z ~ q(z)
            losses["discriminator"] = Loss.mean(of_prior + of_posterior, of_prior=of_prior, of_posterior=of_posterior)
        return losses

    def validation_loss(self, batch: Batch, step: int) -> Loss:
        """Return the negative ELBO where q(z|x) has a density, otherwise the distortion; nats per example."""
        if "rate" in self.capabilities:
            return super().validation_loss(batch, step)
        z = self.posterior(batch.x, batch.y).rsample()
        distortion = -self.likelihood(z, batch.y).log_prob(batch.x)
        return Loss.mean(distortion, distortion=distortion)
