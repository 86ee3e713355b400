"""What every model with a latent is: three conditional distributions and a loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, get_args

import torch
from torch import Tensor
from torch.distributions import Distribution
from typing_extensions import Required, TypedDict

from vaebench.core import Batch, Loss
from vaebench.distributions.diagonal_gaussian import DiagonalGaussian
from vaebench.distributions.likelihoods import Likelihood, LikelihoodName, as_likelihood
from vaebench.distributions.posteriors import DiagonalGaussianPosterior, Posterior
from vaebench.distributions.priors import Prior, StandardNormalPrior
from vaebench.messages import check_range
from vaebench.models.autoencoder import Autoencoder
from vaebench.networks import MLP, Network
from vaebench.objectives.divergences import RateEstimator, rate


class Backbone(TypedDict, total=False):
    """The components that do not depend on the kind of latent: for a model that fixes posterior and prior."""

    likelihood: Required[Likelihood | LikelihoodName]
    latent_dim: int
    network: Network


class Components(Backbone, total=False):
    """What all autoencoders are made of: a model takes them as `**components: Unpack[Components]`.

    Defaults are those of `LatentVariableModel`; a model with another default names that argument.
    """

    posterior: Posterior
    prior: Prior


class ELBOTerms(NamedTuple):
    """What one pass through a model gives for a batch.

    Attributes:
        q: The posterior q(z|x), over (B, D).
        p: The prior p(z).
        z: One draw of each posterior, shape (B, D).
        distortion: -log p(x|z), nats, shape (B,).
        rate: KL(q || p) or its estimate at z, nats, shape (B,).
    """

    q: Any
    p: Any
    z: Tensor
    distortion: Tensor
    rate: Tensor


class LatentVariableModel(Autoencoder):
    """Base of the autoencoders.

    A model sets `loss` (or `losses`), and replaces a part by giving it to the constructor.

    Args:
        shape: Shape of one example.
        likelihood: Module from the decoder's output to p(x|z), or its name where it needs no settings.
        latent_dim: Number of latent dimensions, >= 1.
        network: Description of encoder and decoder.
        posterior: Description of q(z|x).
        prior: Description of p(z).
    """

    capabilities: ClassVar[frozenset[str]] = frozenset({"posterior", "likelihood", "prior", "rate"})

    def __init__(
        self,
        shape: Sequence[int],
        *,
        likelihood: Likelihood | LikelihoodName,
        latent_dim: int = 10,
        network: Network = MLP(),  # noqa: B008 - a frozen description
        posterior: Posterior = DiagonalGaussianPosterior(),  # noqa: B008
        prior: Prior = StandardNormalPrior(),  # noqa: B008
    ) -> None:
        super().__init__()
        check_range("latent_dim", latent_dim, at_least=1, whole=True)
        self.shape = tuple(shape)
        self.latent_dim = latent_dim
        likelihood = as_likelihood(likelihood)
        self.encoder = network.encoder(self.shape)
        self.posterior_head = posterior.build(self.encoder.num_features, latent_dim)
        self.decoder = network.decoder(latent_dim, likelihood.params_shape(self.shape))
        self.likelihood_head = likelihood
        self.prior_head = prior.build(latent_dim)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give the class a signature with the components spelt out, for `help` and completion."""
        super().__init_subclass__(**kwargs)
        cls.__signature__ = _signature(cls)  # type: ignore[attr-defined]

    # The three distributions

    def posterior(self, x: Tensor, y: Tensor | None = None) -> Any:
        """Return q(z|x) for x of shape (B, *shape): a distribution over (B, *latent_shape)."""
        return self.posterior_head(self.encoder(x))

    def likelihood(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        """Return p(x|z) for z of shape (..., *latent_shape): a distribution over (..., *shape)."""
        leading = z.shape[: z.ndim - len(self.latent_shape)]
        params = self.decoder(z.reshape(-1, *self.latent_shape))
        return self.likelihood_head(params.reshape(*leading, *params.shape[1:]), len(self.shape))

    def prior(self, y: Tensor | None = None) -> Any:
        """Return p(z), a distribution with event shape `latent_shape`."""
        return self.prior_head()

    # Estimates

    def rate(self, q: Any, p: Any, z: Tensor) -> tuple[Tensor, RateEstimator]:
        """Return KL(q || p) in nats, shape (B,), and how it was found; see `objectives.divergences.rate`."""
        self.require("rate")
        return rate(q, p, z)

    @property
    def rate_estimator(self) -> str:
        """How this model's rate is found, asked of its posterior of one example: the end of a line in a table."""
        was_training = self.training
        self.eval()
        with torch.no_grad():
            x = next(self.parameters()).new_zeros(1, *self.shape)
            y = self._any_label()
            q = self.posterior(x, y)
            estimator = self.rate(q, self.prior(y), q.mean)[1]
        self.train(was_training)
        return estimator

    def log_joint(self, x: Tensor, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return log p(x, z) for x (B, *shape) and z (..., B, *latent_shape); nats, shape (..., B)."""
        return self.likelihood(z, y).log_prob(x) + self.prior(y).log_prob(z)

    def elbo_terms(self, x: Tensor, y: Tensor | None = None) -> ELBOTerms:
        """Encode, draw once and decode: what an objective is made of.

        Raises:
            ValueError: if the model has no rate.
        """
        self.require("rate")
        q, p = self.posterior(x, y), self.prior(y)
        z = q.rsample()
        distortion = -self.likelihood(z, y).log_prob(x)
        return ELBOTerms(q, p, z, distortion, self.rate(q, p, z)[0])

    def distortion_and_rate(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return -log p(x|z) at one z ~ q(z|x), and the rate; nats, each of shape (B,)."""
        terms = self.elbo_terms(x, y)
        return terms.distortion, terms.rate

    def log_weights(self, x: Tensor, num_samples: int, y: Tensor | None = None) -> Tensor:
        """Return log w = log p(x, z) - log q(z|x) for z ~ q(z|x); nats, shape (num_samples, B)."""
        self.require("rate")
        q = self.posterior(x, y)
        z_KBD = q.rsample((num_samples,))
        return self.log_joint(x, z_KBD, y) - q.log_prob(z_KBD)

    # Training

    def validation_loss(self, batch: Batch, step: int) -> Loss:
        """Return the negative ELBO at beta = 1 where it exists, otherwise the training loss."""
        if "rate" not in self.capabilities:
            return self.loss(batch, step)
        distortion, rate = self.distortion_and_rate(batch.x, batch.y)
        return Loss.mean(distortion + rate, distortion=distortion, rate=rate)

    def penalty(
        self, q: Any, p: Any, rate: Tensor, step: int | None = None, beta: float | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what the objective adds to the distortion, and numbers for the logs.

        Args:
            q: The posterior, over (B, D).
            p: The prior.
            rate: Nats, shape (B,).
            step: Optimiser step, for a weight that changes; None where it is not known.
            beta: Weight of the rate in place of the model's.

        Returns:
            beta * rate here, beta being 1; nats, shape (B,), or a scalar where it is one number for the whole batch.
        """
        return rate if beta is None else beta * rate, {}

    def loss_fn(
        self,
        x: Tensor,
        outputs: Mapping[str, Tensor] | None = None,
        beta: float | None = None,
        reconstruction_loss_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
        y: Tensor | None = None,
        step: int | None = None,
    ) -> dict[str, Tensor]:
        """Return the distortion plus the model's `penalty`, and its terms: means over the batch, nats.

        Args:
            x: Shape (B, *shape).
            outputs: What calling the model on `x` returned; computed where it is None.
            beta: Weight of the rate, in place of the model's.
            reconstruction_loss_fn: Replaces the negative log-likelihood: (predictions, targets) -> scalar.
            y: Labels, shape (B,).
            step: Optimiser step, for a weight that changes.

        Returns:
            reconstruction_loss (also `recon_loss`), kl_loss, total_loss (also `loss`), and the penalty's own numbers.
        """
        self.require("rate")
        x = self._batched(x)
        outputs = self(x, y) if outputs is None else outputs
        q = getattr(outputs, "q", None) or DiagonalGaussian(outputs["mean"], outputs["log_var"])
        z, p = outputs["z"], self.prior(y)
        if reconstruction_loss_fn is None:
            distortion = -self.likelihood(z, y).log_prob(x).mean()
        else:
            distortion = reconstruction_loss_fn(outputs["reconstruction"], x)
        rate, _ = self.rate(q, p, z)
        penalty, logs = self.penalty(q, p, rate, step, beta)
        total = distortion + penalty.mean()
        return {
            "reconstruction_loss": distortion,
            "recon_loss": distortion,
            "kl_loss": rate.mean(),
            "total_loss": total,
            "loss": total,
            **logs,
        }

    def _any_label(self) -> Tensor | None:
        """Some label, shape (1,), for a model that needs one."""
        return None


def _signature(cls: type[LatentVariableModel]) -> inspect.Signature:
    """Signature of a constructor, its `**components` replaced by the base's arguments that it stands for."""
    own = inspect.signature(cls.__init__)
    named = [p for p in list(own.parameters.values())[1:] if p.kind is not p.VAR_KEYWORD]
    for passed_on in (p for p in own.parameters.values() if p.kind is p.VAR_KEYWORD):
        text = passed_on.annotation
        unpacked = eval(text, cls.__init__.__globals__) if isinstance(text, str) else text
        (kind,) = get_args(unpacked) or (Components,)
        base = inspect.signature(LatentVariableModel.__init__).parameters
        named += [base[key] for key in kind.__annotations__ if key not in own.parameters]
    return own.replace(parameters=named)
