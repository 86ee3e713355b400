"""The base of the autoencoders: three conditional distributions and a loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from typing_extensions import TypedDict

from vaebench.core import Batch, Loss
from vaebench.distributions.diagonal_gaussian import DiagonalGaussian
from vaebench.distributions.likelihoods import Likelihood, LikelihoodName, as_likelihood
from vaebench.distributions.posteriors import DiagonalGaussianPosterior, Posterior
from vaebench.distributions.priors import Prior, StandardNormalPrior
from vaebench.messages import check_range
from vaebench.models.aliases import also_takes, likelihood_of, weight_of_one
from vaebench.models.autoencoder import Autoencoder
from vaebench.networks import MLP, Network
from vaebench.networks.network import Encoder
from vaebench.networks.own import OwnDecoder, OwnEncoder, output_shape
from vaebench.objectives.divergences import RateEstimator, rate


class Backbone(TypedDict, total=False):
    """The components that do not depend on the kind of latent: for a model that fixes posterior and prior."""

    likelihood: Likelihood | LikelihoodName
    latent_dim: int
    network: Network
    encoder: nn.Module | None
    decoder: nn.Module | None


class Components(Backbone, total=False):
    """The components of all autoencoders: a model takes them as `**components: Unpack[Components]`.

    Defaults are those of `LatentVariableModel`; a model with another default names that argument.
    """

    posterior: Posterior
    prior: Prior


class ELBOTerms(NamedTuple):
    """The terms of the ELBO from one pass of a batch.

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
        shape: Shape of one example; None asks a decoder of your own.
        likelihood: Module from the decoder's output to p(x|z), or its name where it needs no settings. With a decoder
            of your own it may be left out, and is then a Gaussian of scale 1: half the squared error, and a constant.
        latent_dim: Number of latent dimensions, >= 1.
        network: Description of encoder and decoder.
        encoder: A module of your own in place of the network's: x (B, *shape) -> mean and log-variance, each
            (B, latent_dim); or -> features (B, num_features), where it has an attribute of that name.
        decoder: A module of your own in place of the network's: z (B, latent_dim) -> the likelihood's parameters.
        posterior: Description of q(z|x).
        prior: Description of p(z).
    """

    capabilities: ClassVar[frozenset[str]] = frozenset({"posterior", "likelihood", "prior", "rate"})

    @also_takes(likelihood_of, weight_of_one)
    def __init__(
        self,
        shape: Sequence[int] | None = None,
        *,
        likelihood: Likelihood | LikelihoodName | None = None,
        latent_dim: int = 10,
        network: Network = MLP(),  # noqa: B008 - a frozen description
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        posterior: Posterior = DiagonalGaussianPosterior(),  # noqa: B008
        prior: Prior = StandardNormalPrior(),  # noqa: B008
    ) -> None:
        super().__init__()
        check_range("latent_dim", latent_dim, at_least=1, whole=True)
        if decoder is None and (shape is None or likelihood is None):
            raise ValueError("shape and likelihood are needed where there is no decoder of your own")
        if isinstance(shape, int):
            raise ValueError(f"shape: expected that of one example, such as (1, 28, 28); for vectors write ({shape},)")
        if not hasattr(network, "encoder"):
            raise ValueError(
                f"network: {type(self).__name__} takes no {type(network).__name__}, which is for a hierarchy; choose "
                "another network, or model=ladder_vae"
            )
        likelihood = as_likelihood("gaussian" if likelihood is None else likelihood)
        self.latent_dim = latent_dim
        self.shape = _shape_of(decoder, latent_dim, likelihood) if shape is None else tuple(shape)
        self.encoder = network.encoder(self.shape) if encoder is None else OwnEncoder(encoder, latent_dim, self.shape)
        self.posterior_head = _posterior_head(posterior, self.encoder, latent_dim)
        likelihood.setup(self.shape)
        params_shape = likelihood.params_shape(self.shape)
        self.decoder = (
            network.decoder(latent_dim, params_shape) if decoder is None else OwnDecoder(decoder, params_shape)
        )
        self.likelihood_head = likelihood
        self.prior_head = prior.build(latent_dim)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give the class a signature with the components spelt out, for `help` and completion."""
        super().__init_subclass__(**kwargs)
        cls.__signature__ = _signature(cls)

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
        x: Tensor | None = None,
        outputs: Mapping[str, Tensor] | None = None,
        beta: float | None = None,
        reconstruction_loss_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
        y: Tensor | None = None,
        step: int | None = None,
        batch: Batch | Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return the distortion plus the model's `penalty`, and its terms: means over the batch, nats.

        Args:
            x: Shape (B, *shape).
            outputs: What calling the model on `x` returned; computed where it is None.
            beta: Weight of the rate, in place of the model's.
            reconstruction_loss_fn: Replaces the negative log-likelihood: (predictions, targets) -> scalar.
            y: Labels, shape (B,).
            step: Optimiser step, for a weight that changes.
            batch: Gives x, and y where it has labels, in the place of both; a mapping has them under these names.

        Returns:
            reconstruction_loss (also `recon_loss`), kl_loss, total_loss (also `loss`), and the penalty's own numbers.
        """
        self.require("rate")
        if batch is not None:
            x, y = (batch.x, batch.y) if isinstance(batch, Batch) else (batch["x"], batch.get("y", y))
        if x is None:
            raise ValueError("loss_fn needs x, or a batch that holds it")
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


def _posterior_head(posterior: Posterior, encoder: Encoder, latent_dim: int) -> nn.Module:
    """Return the module between encoder and q(z|x): only a bound, if the encoder returns a pair."""
    if not isinstance(encoder, OwnEncoder) or encoder.returns_features:
        return posterior.build(encoder.num_features, latent_dim)
    if not isinstance(posterior, DiagonalGaussianPosterior):
        raise ValueError(
            f"encoder: {type(encoder.module).__name__} returns mean and log-variance, which {type(posterior).__name__} "
            f"does not take; give it an attribute num_features, and let it return features of shape (B, num_features)"
        )
    return posterior.build_from_pair()


def _shape_of(decoder: nn.Module | None, latent_dim: int, likelihood: Likelihood) -> tuple[int, ...]:
    """The shape of an example, from a decoder that returns one parameter for each of its dimensions."""
    assert decoder is not None
    shape = output_shape(decoder, latent_dim)
    if likelihood.params_shape(shape) != shape:
        raise ValueError(
            f"shape is needed: {type(likelihood).__name__} has other parameters than one for each dimension"
        )
    return shape


def _signature(cls: type[LatentVariableModel]) -> inspect.Signature:
    """Signature of a constructor, its `**components` replaced by its parents' arguments that it stands for."""
    init = inspect.unwrap(cls.__init__)
    own = inspect.signature(init)
    named = [p for p in list(own.parameters.values())[1:] if p.kind is not p.VAR_KEYWORD]
    for passed_on in (p for p in own.parameters.values() if p.kind is p.VAR_KEYWORD):
        text = passed_on.annotation
        unpacked = eval(text, init.__globals__) if isinstance(text, str) else text
        (kind,) = get_args(unpacked) or (Components,)
        parents = [parent.__init__ for parent in reversed(cls.__mro__[1:]) if issubclass(parent, LatentVariableModel)]
        base = {name: p for parent in parents for name, p in inspect.signature(parent).parameters.items()}
        named += [base[key] for key in kind.__annotations__ if key not in own.parameters]
    return own.replace(parameters=named)
