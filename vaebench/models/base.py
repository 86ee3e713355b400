"""What every model is: three conditional distributions and a loss; and what a user does with any of them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor
from torch.distributions import Distribution, kl_divergence
from typing_extensions import Required, TypedDict

from vaebench.core import Batch, Loss, Model
from vaebench.distributions.diagonal_gaussian import DiagonalGaussian
from vaebench.distributions.likelihoods import Likelihood
from vaebench.distributions.posteriors import DiagonalGaussianPosterior, Posterior
from vaebench.distributions.priors import Prior, StandardNormalPrior
from vaebench.hardware import collective
from vaebench.messages import check_range
from vaebench.networks import MLP, Network


class Backbone(TypedDict, total=False):
    """The components that do not depend on the kind of latent: for a model that fixes posterior and prior."""

    likelihood: Required[Likelihood]
    latent_dim: int
    network: Network


class Components(Backbone, total=False):
    """What all autoencoders are made of: a model takes them as `**components: Unpack[Components]`.

    Defaults are those of `LatentVariableModel`; a model with another default names that argument.
    """

    posterior: Posterior
    prior: Prior


class LatentVariableModel(Model):
    """Base of the autoencoders.

    A model sets `loss` (or `losses`), and replaces a part by giving it to the constructor.

    Attributes:
        latent_dim: Number of latent dimensions.
        rate_estimator: How `distortion_and_rate` finds the rate, the end of a line in a table of results.

    Args:
        shape: Shape of one example.
        likelihood: Module from the decoder's output to p(x|z).
        latent_dim: Number of latent dimensions, >= 1.
        network: Description of encoder and decoder.
        posterior: Description of q(z|x).
        prior: Description of p(z).
    """

    capabilities: ClassVar[frozenset[str]] = frozenset({"posterior", "likelihood", "prior", "rate"})
    rate_estimator: ClassVar[str] = "in closed form"

    def __init__(
        self,
        shape: Sequence[int],
        *,
        likelihood: Likelihood,
        latent_dim: int = 10,
        network: Network = MLP(),  # noqa: B008 - a frozen description
        posterior: Posterior = DiagonalGaussianPosterior(),  # noqa: B008
        prior: Prior = StandardNormalPrior(),  # noqa: B008
    ) -> None:
        super().__init__()
        check_range("latent_dim", latent_dim, at_least=1, whole=True)
        self.shape = tuple(shape)
        self.latent_dim = latent_dim
        self.encoder = network.encoder(self.shape)
        self.posterior_head = posterior.build(self.encoder.num_features, latent_dim)
        self.decoder = network.decoder(latent_dim, likelihood.params_shape(self.shape))
        self.likelihood_head = likelihood
        self.prior_head = prior.build(latent_dim)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give the class a signature with the components spelt out, for `help` and completion."""
        super().__init_subclass__(**kwargs)
        cls.__signature__ = _signature(cls)  # type: ignore[attr-defined]

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent: (D,), or (K, H, W) for a grid of codes."""
        return (self.latent_dim,)

    def draw_labels(self, num_samples: int) -> Tensor | None:
        """Draw labels as often as training saw them, shape (num_samples,); None for a model without labels."""
        return None

    # The three distributions

    def posterior(self, x: Tensor, y: Tensor | None = None) -> Any:
        """Return q(z|x) for x of shape (B, *shape): a distribution over (B, D)."""
        return self.posterior_head(self.encoder(x))

    def likelihood(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        """Return p(x|z) for z of shape (..., D): a distribution over (..., *shape)."""
        params = self.decoder(z.reshape(-1, self.latent_dim))
        return self.likelihood_head(params.reshape(*z.shape[:-1], *params.shape[1:]), len(self.shape))

    def prior(self, y: Tensor | None = None) -> Any:
        """Return p(z), a distribution with event shape (D,)."""
        return self.prior_head()

    # Training

    def validation_loss(self, batch: Batch, step: int) -> Loss:
        """Return the negative ELBO at beta = 1 where it exists, otherwise the training loss."""
        if "rate" not in self.capabilities:
            return self.loss(batch, step)
        distortion, rate = self.distortion_and_rate(batch.x, batch.y)
        return Loss.mean(distortion + rate, distortion=distortion, rate=rate)

    # Estimates

    def distortion_and_rate(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return -log p(x|z) at one z ~ q(z|x), and KL(q(z|x) || p(z)); nats, each of shape (B,)."""
        self.require("rate")
        q = self.posterior(x, y)
        distortion = -self.likelihood(q.rsample(), y).log_prob(x)
        return distortion, kl_divergence(q, self.prior(y))

    def log_weights(self, x: Tensor, num_samples: int, y: Tensor | None = None) -> Tensor:
        """Return log w = log p(x, z) - log q(z|x) for z ~ q(z|x); nats, shape (num_samples, B)."""
        self.require("rate")
        q = self.posterior(x, y)
        z_KBD = q.rsample((num_samples,))
        return self.likelihood(z_KBD, y).log_prob(x) + self.prior(y).log_prob(z_KBD) - q.log_prob(z_KBD)

    # What a user does with any model

    def encode(self, x: Tensor, y: Tensor | None = None) -> Any:
        """Return q(z|x), which unpacks as mean and log-variance, each of shape (B, D)."""
        return self.posterior(self._batched(x), y)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the mean of p(x|z) for z of shape (..., D), shape (..., *shape)."""
        return self.likelihood(z, y).mean

    def reparameterize(self, mean: Tensor, log_var: Tensor) -> Tensor:
        """Draw mean + exp(log_var / 2) * eps, shape (B, D)."""
        return mean + (0.5 * log_var).exp() * collective.standard_normal(mean.shape, like=mean)

    def forward(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Encode, draw and decode.

        Returns:
            reconstruction (also `reconstructed`), mean, log_var (also `logvar`), z.
        """
        q = self.encode(x, y)
        mean, log_var = q
        z = q.rsample()
        picture = self.decode(z, y)
        return {
            "reconstruction": picture,
            "reconstructed": picture,
            "mean": mean,
            "log_var": log_var,
            "logvar": log_var,
            "z": z,
        }

    def loss_fn(
        self,
        x: Tensor,
        outputs: Mapping[str, Tensor] | None = None,
        beta: float = 1.0,
        reconstruction_loss_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
        y: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return D + beta * R and its two terms, means over the batch in nats.

        Args:
            x: Shape (B, *shape).
            outputs: What calling the model on `x` returned; computed where it is None.
            beta: Weight of the rate.
            reconstruction_loss_fn: Replaces the negative log-likelihood: (predictions, targets) -> scalar.
            y: Labels, shape (B,).
        """
        self.require("rate")
        x = self._batched(x)
        outputs = self(x, y) if outputs is None else outputs
        q = DiagonalGaussian(outputs["mean"], outputs["log_var"])
        if reconstruction_loss_fn is None:
            distortion = -self.likelihood(outputs["z"], y).log_prob(x).mean()
        else:
            distortion = reconstruction_loss_fn(outputs["reconstruction"], x)
        rate = kl_divergence(q, self.prior(y)).mean()
        total = distortion + beta * rate
        return {
            "reconstruction_loss": distortion,
            "recon_loss": distortion,
            "kl_loss": rate,
            "total_loss": total,
            "loss": total,
        }

    @torch.no_grad()
    def sample(self, num_samples: int = 1, temperature: float = 1.0, y: Tensor | None = None) -> Tensor:
        """Decode draws from the prior, shape (num_samples, *shape).

        Args:
            num_samples: How many, >= 1.
            temperature: Factor on the prior's deviation from its mean; 1 samples the model.
            y: Labels, shape (num_samples,).
        """
        self.require("prior")
        check_range("num_samples", num_samples, at_least=1, whole=True)
        p = self.prior(y)
        z = p.sample((num_samples,)) if len(p.batch_shape) == 0 else p.sample()
        return self.decode(p.mean + temperature * (z - p.mean), y)

    def generate(self, num_samples: int = 1, temperature: float = 1.0, y: Tensor | None = None) -> Tensor:
        """Same as `sample`."""
        return self.sample(num_samples, temperature, y)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, deterministic: bool = False, y: Tensor | None = None) -> Tensor:
        """Encode and decode x of shape (B, *shape), through the mean of q where `deterministic`."""
        q = self.encode(x, y)
        return self.decode(q.mean if deterministic else q.sample(), y)

    @torch.no_grad()
    def interpolate(self, x1: Tensor, x2: Tensor, steps: int = 10, spherical: bool = False) -> Tensor:
        """Decode a path between two posterior means, both ends included.

        Args:
            x1: One example (*shape) or one in a batch (1, *shape).
            x2: Likewise.
            steps: Points on the path, >= 2.
            spherical: Follow the great circle instead of the straight line.

        Returns:
            Shape (steps, *shape).

        Raises:
            ValueError: if `steps` is below 2, or an input holds several examples.
        """
        check_range("steps", steps, at_least=2, whole=True)  # both ends are included
        a, b = self.encode(self._single(x1)).mean[0], self.encode(self._single(x2)).mean[0]
        t = torch.linspace(0, 1, steps, device=a.device, dtype=a.dtype)[:, None]
        path = (1 - t) * a + t * b
        if spherical:
            cosine = torch.dot(a, b) / (a.norm() * b.norm()).clamp_min(1e-12)
            angle = torch.arccos(cosine.clamp(-1, 1))
            if math.sin(angle.item()) > 1e-4:  # otherwise parallel: the great circle is the line, or not unique
                path = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)
        return self.decode(path)

    @torch.no_grad()
    def latent_traversal(
        self, x: Tensor, dim: int, range_vals: tuple[float, float] = (-3.0, 3.0), steps: int = 10
    ) -> Tensor:
        """Decode the posterior mean of one example with one dimension set to each of `steps` values.

        Returns:
            Shape (steps, *shape).

        Raises:
            ValueError: if `dim` is not in [0, latent_dim), `steps` is below 1, or `x` holds several examples.
        """
        if not 0 <= dim < self.latent_dim:
            raise ValueError(f"dim must be in [0, {self.latent_dim}), the latent dimensions; got {dim}")
        check_range("steps", steps, at_least=1, whole=True)
        z = self.encode(self._single(x)).mean.repeat(steps, 1)
        z[:, dim] = torch.linspace(*range_vals, steps, device=z.device, dtype=z.dtype)
        return self.decode(z)

    def _batched(self, x: Tensor) -> Tensor:
        x = x[None] if tuple(x.shape) == self.shape else x
        if tuple(x.shape[1:]) != self.shape:
            batched = f"(B, {', '.join(map(str, self.shape))})"
            raise ValueError(f"expected x of shape {self.shape} or {batched}, got {tuple(x.shape)}")
        return x

    def _single(self, x: Tensor) -> Tensor:
        x = self._batched(x)
        if len(x) != 1:
            raise ValueError(f"expected one example of shape {self.shape}, got a batch of {len(x)}")
        return x


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
