"""The base of the models with several groups of latents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Required, TypedDict

from vaebench.core import Batch, Loss
from vaebench.distributions.hierarchy import HierarchicalPosterior
from vaebench.distributions.likelihoods import Likelihood, LikelihoodName, as_likelihood
from vaebench.messages import check_range
from vaebench.models.base import ELBOTerms, LatentVariableModel
from vaebench.networks.batch_norm import BatchNorm
from vaebench.networks.hierarchy import HierarchicalNetwork, TopDown
from vaebench.objectives.divergences import RateEstimator
from vaebench.schedules import Schedule, as_schedule, value_at

IN_TURN: RateEstimator = "in closed form for each group, at one draw of those above"


class HierarchyComponents(TypedDict, total=False):
    """Arguments of every hierarchy, besides its network and the weight of the rate."""

    likelihood: Required[Likelihood | LikelihoodName]
    gradient_checkpointing: bool


class HierarchicalModel(LatentVariableModel):
    r"""Base of the hierarchies: groups of latents, the top group first, each drawn given those above it.

    .. math:: L = -E_q[\log p(x|z)] + \beta(t) \sum_l E_q[KL(q(z_l|z_{<l}, x) \| p(z_l|z_{<l}))]

    A latent is one vector (D,), the standardised values of all groups one after the other; see `networks.hierarchy`. So
    the decoder is the top-down network, the prior is N(0, I), and everything that takes vectors works.

    Args:
        shape: Shape of one example.
        likelihood: Module from the last layer's output to p(x|z), or its name where it needs no settings.
        network: Description of the bottom-up and top-down networks.
        beta: Weight of the rate in training, a number or a schedule, >= 0.
        gradient_checkpointing: Whether training keeps only what passes between the groups, and computes the rest anew
            in the backward pass: less memory for a third more time.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset({"posterior", "likelihood", "prior", "rate", "groups"})
    decoder: TopDown

    def __init__(
        self,
        shape: Sequence[int],
        *,
        likelihood: Likelihood | LikelihoodName,
        network: HierarchicalNetwork,
        beta: float | Schedule = 1.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        likelihood = as_likelihood(likelihood)
        if not hasattr(network, "top_down"):
            raise ValueError(
                f"network: {type(self).__name__} needs a network of groups, such as ladder, nvae or vdvae; got "
                f"{type(network).__name__}"
            )
        networks: Any = _Both(network, tuple(shape), likelihood)
        super().__init__(
            shape, likelihood=likelihood, latent_dim=sum(networks.below.sizes), network=networks, posterior=_NoHead()
        )
        self.beta = as_schedule(beta)
        for step in (0, 10**9):
            check_range("beta", self.beta(step), at_least=0, below=math.inf)
        for module in (self.encoder, self.decoder):
            module.is_checkpointed = gradient_checkpointing
        has_batch_norm = any(isinstance(module, BatchNorm) for module in self.modules())
        self.couples_batch = has_batch_norm  # type: ignore[misc] # it depends on the network
        self.min_batch = 2 if has_batch_norm else 1  # type: ignore[misc]

    # The three distributions

    def posterior(self, x: Tensor, y: Tensor | None = None) -> HierarchicalPosterior:
        """Return q(z|x) for x of shape (B, *shape): a distribution over (B, D)."""
        return HierarchicalPosterior(self.decoder, self.encoder(x))

    @property
    def group_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the groups' latents, the top group first."""
        return list(self.decoder.shapes)

    @property
    def group_sizes(self) -> list[int]:
        """How many latents each group has, the top group first."""
        return list(self.decoder.sizes)

    def groups(self, z: Tensor) -> list[Tensor]:
        """Return views of latents (..., D) by group, each of shape (..., *group_shape)."""
        parts = z.split(self.group_sizes, -1)
        return [part.unflatten(-1, shape) for part, shape in zip(parts, self.group_shapes, strict=True)]

    # Estimates

    def rate(self, q: Any, p: Any, z: Tensor) -> tuple[Tensor, RateEstimator]:
        """Return the sum of KL(q_l || p_l), each group given those above it in z; nats, shape (B,)."""
        given = q.given(z)
        return self._by_group(given.mean, given.log_var).sum(-1), IN_TURN

    def elbo_terms(self, x: Tensor, y: Tensor | None = None) -> ELBOTerms:
        """Encode and pass once from the top to the bottom: what an objective is made of."""
        return self.group_terms(x, y)[0]

    def group_terms(self, x: Tensor, y: Tensor | None = None) -> tuple[ELBOTerms, Tensor]:
        """Return the `elbo_terms`, and what each group adds to the rate, nats, shape (B, G), the top group first."""
        q = self.posterior(x, y)
        descent = q.draw()
        distortion = -self._likelihood_below(descent.state).log_prob(x)
        rates = self._by_group(descent.mean, descent.log_var)
        return ELBOTerms(q, self.prior(y), descent.z, distortion, rates.sum(-1)), rates

    def log_weights(self, x: Tensor, num_samples: int, y: Tensor | None = None) -> Tensor:
        """Return log w = log p(x, z) - log q(z|x) for z ~ q(z|x); nats, shape (num_samples, B)."""
        descent = self.posterior(x, y).draw((num_samples,))
        z, mean, log_var = descent.z, descent.mean, descent.log_var
        log_p_minus_log_q = 0.5 * ((z - mean).square() * (-log_var).exp() + log_var - z.square()).sum(-1)
        log_likelihood = self._likelihood_below(descent.state).log_prob(x.repeat(num_samples, *[1] * (x.ndim - 1)))
        return (log_likelihood + log_p_minus_log_q).view(num_samples, len(x))

    # Training

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return D + beta(step) R; nats per example."""
        terms, rates = self.group_terms(batch.x, batch.y)
        beta = self.beta(step)
        return Loss.mean(terms.distortion + beta * terms.rate, **logged(terms, rates, beta))

    def validation_loss(self, batch: Batch, step: int) -> Loss:
        """Return the negative ELBO at beta = 1."""
        terms, rates = self.group_terms(batch.x, batch.y)
        return Loss.mean(terms.distortion + terms.rate, **logged(terms, rates))

    def penalty(
        self, q: Any, p: Any, rate: Tensor, step: int | None = None, beta: float | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return beta * R, shape (B,), and `beta`.

        Raises:
            ValueError: if beta changes with the step, and none is given.
        """
        beta = value_at("beta", self.beta, step) if beta is None else beta
        return beta * rate, {"beta": rate.new_tensor(beta)}

    # Parts of the above

    def _by_group(self, mean: Tensor, log_var: Tensor) -> Tensor:
        """KL(N(mean, exp(log_var)) || N(0, I)) of each group, shape (B, G)."""
        rates_BD = 0.5 * (mean.square() + log_var.exp() - 1 - log_var)
        return torch.stack([part.sum(-1) for part in rates_BD.split(self.group_sizes, -1)], -1)

    def _likelihood_below(self, state: Tensor) -> Any:
        return self.likelihood_head(self.decoder.output(state), len(self.shape))


def logged(terms: ELBOTerms, rates_BG: Tensor, beta: float | None = None) -> dict[str, Tensor]:
    """Return what logs show of a pass: distortion, rate, the rate of each group, each of shape (B,), and beta."""
    groups = dict(zip(group_names(rates_BG.shape[-1]), rates_BG.unbind(-1), strict=True))
    weight = {} if beta is None else {"beta": rates_BG.new_tensor(beta)}
    return {"distortion": terms.distortion, "rate": terms.rate, **groups, **weight}


def group_names(num_groups: int) -> list[str]:
    """Names of the groups' rates in logs, the top group first.

    >>> group_names(2)
    ['rate_group_0', 'rate_group_1']
    """
    width = len(str(num_groups - 1))
    return [f"rate_group_{number:0{width}d}" for number in range(num_groups)]


class _Both:
    """The two networks of a description, as the pair that every model has."""

    def __init__(self, network: HierarchicalNetwork, shape: tuple[int, ...], likelihood: Likelihood) -> None:
        self.above = network.bottom_up(shape)
        self.below = network.top_down(shape, likelihood.params_shape(shape))

    def encoder(self, shape: tuple[int, ...], **_: Any) -> Any:
        return self.above

    def decoder(self, latent_dim: int, shape: tuple[int, ...], **_: Any) -> nn.Module:
        return self.below


class _NoHead:
    """The moments come from the groups."""

    def build(self, num_features: int, latent_dim: int) -> nn.Module:
        return nn.Identity()
