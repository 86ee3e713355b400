"""The methods of every autoencoder: encode, decode, sample, reconstruct, interpolate, traverse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaebench.core import Model
from vaebench.distributions.diagonal_gaussian import DiagonalGaussian
from vaebench.distributions.temperature import check_temperature, tempered
from vaebench.messages import check_range


class Outputs(dict[str, Tensor]):
    """The return value of calling a model: tensors by name, and the posterior that they come from.

    Attributes:
        q: The posterior q(z|x).
    """

    q: Any = None


class Autoencoder(Model):
    """A model with three conditional distributions. Labels `y` are handed on to them; where there are none, y is None.

    Attributes:
        latent_dim: Number of latent dimensions.
    """

    latent_dim: int

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent: (D,), or (K, H, W) for a grid of codes."""
        return (self.latent_dim,)

    @property
    def group_sizes(self) -> list[int]:
        """How many latents each group has, the top group first; a model without a hierarchy has one group."""
        return [math.prod(self.latent_shape)]

    @property
    def reconstructs(self) -> bool:
        """Whether `reconstruct` has an answer."""
        return {"posterior", "likelihood"} <= self.capabilities

    def posterior(self, x: Tensor, y: Tensor | None = None) -> Any:
        """Return q(z|x) for x of shape (B, *shape): a distribution over (B, *latent_shape)."""
        raise NotImplementedError

    def likelihood(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        """Return p(x|z) for z of shape (..., *latent_shape): a distribution over (..., *shape)."""
        raise NotImplementedError

    def prior(self, y: Tensor | None = None) -> Any:
        """Return p(z), a distribution with event shape `latent_shape`; with labels y (B,) it may be one for each."""
        raise NotImplementedError

    def draw_labels(self, num_samples: int) -> Tensor | None:
        """Draw labels as often as training saw them, shape (num_samples,); None for a model without labels."""
        return None

    def draw_from_prior(self, num_samples: int, y: Tensor | None = None) -> Tensor:
        """Draw z ~ p(z), or p(z|y) with labels of shape (num_samples,); shape (num_samples, *latent_shape)."""
        p = self.prior(y)
        return (p if len(p.batch_shape) else p.expand((num_samples,))).sample()

    def encode(self, x: Tensor, y: Tensor | int | None = None) -> Any:
        """Return q(z|x), which unpacks and indexes as mean and log-variance, each of shape (B, D).

        Raises:
            ValueError: if x has neither the shape of one example nor that of a batch.
        """
        x = self._batched(x)
        return self.posterior(x, self._labels(y, len(x)))

    def decode(self, z: Tensor, y: Tensor | int | None = None) -> Tensor:
        """Return the mean of p(x|z) for z of shape (..., *latent_shape), shape (..., *shape)."""
        rows = z.shape[-1 - len(self.latent_shape)] if z.ndim > len(self.latent_shape) else 1
        return self._mean_of(self.likelihood(z, self._labels(y, rows)))

    def picture(self, z: Tensor, y: Tensor | int | None = None) -> Tensor:
        """Return what shows p(x|z) among samples and reconstructions: its mean, as `decode`, unless it has none."""
        return self.decode(z, y)

    def _mean_of(self, likelihood: Any) -> Tensor:
        """The one example that stands for p(x|z), shape (..., *shape)."""
        return likelihood.mean

    def reparameterize(self, mean: Tensor, log_var: Tensor) -> Tensor:
        """Draw mean + exp(log_var / 2) * eps, shape (B, D)."""
        return DiagonalGaussian(mean, log_var).rsample()

    def forward(self, x: Tensor, y: Tensor | int | None = None) -> Outputs:
        """Encode, draw and decode.

        Returns:
            reconstruction (also `reconstructed`), mean, log_var (also `logvar`), z.
        """
        q = self.encode(x, y)
        mean, log_var = q
        z = q.rsample()
        image = self.decode(z, y)
        names = {"reconstructed": image, "reconstruction": image, "mean": mean, "log_var": log_var, "logvar": log_var}
        outputs = Outputs(**names, z=z)
        outputs.q = q
        return outputs

    @torch.no_grad()
    def sample(
        self,
        num_samples: int = 1,
        temperature: float | Sequence[float] = 1.0,
        y: Tensor | Sequence[int] | int | None = None,
        *,
        n_samples: int | None = None,
    ) -> Tensor:
        """Decode draws from the prior, shape (num_samples, *shape).

        Args:
            num_samples: How many, >= 1.
            temperature: Factor on the prior's deviation from its mean, >= 0; 1 samples the model. Of a hierarchy also
                one for each group, the top group first.
            y: Labels, shape (num_samples,), or one label for all; None draws labels as often as training saw them.
            n_samples: Another name of `num_samples`.
        """
        self.require("prior")
        num_samples = num_samples if n_samples is None else n_samples
        check_range("num_samples", num_samples, at_least=1, whole=True)
        check_temperature(temperature)
        labels = self.draw_labels(num_samples) if y is None else self._labels(y, num_samples)
        z = self.draw_from_prior(num_samples, labels)
        if temperature != 1:
            z = tempered(z, self.prior(labels).mean, temperature, self.group_sizes)
        return self.picture(z, labels)

    def generate(
        self,
        num_samples: int = 1,
        temperature: float | Sequence[float] = 1.0,
        y: Tensor | Sequence[int] | int | None = None,
        *,
        n_samples: int | None = None,
    ) -> Tensor:
        """Same as `sample`."""
        return self.sample(num_samples, temperature, y, n_samples=n_samples)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, deterministic: bool = False, y: Tensor | int | None = None) -> Tensor:
        """Encode and decode x of shape (B, *shape), through the mean of q where `deterministic`."""
        q = self.encode(x, y)
        return self.picture(q.mean if deterministic else q.sample(), y)

    @torch.no_grad()
    def interpolate(
        self, x1: Tensor, x2: Tensor, steps: int = 10, spherical: bool = False, y: Tensor | int | None = None
    ) -> Tensor:
        """Decode a path between two posterior means, both ends included.

        Args:
            x1: One example (*shape) or one in a batch (1, *shape).
            x2: Likewise.
            steps: Points on the path, >= 2.
            spherical: Follow the great circle instead of the straight line.
            y: The label of the whole path.

        Returns:
            Shape (steps, *shape).

        Raises:
            ValueError: if `steps` is below 2, or an input holds several examples.
        """
        check_range("steps", steps, at_least=2, whole=True)  # both ends are included
        a, b = (self.encode(self._single(x), y).mean[0] for x in (x1, x2))
        t = torch.linspace(0, 1, steps, device=a.device, dtype=a.dtype).reshape(steps, *(1,) * a.ndim)
        path = (1 - t) * a + t * b
        if spherical:
            cosine = torch.dot(a.flatten(), b.flatten()) / (a.norm() * b.norm()).clamp_min(1e-12)
            angle = torch.arccos(cosine.clamp(-1, 1))
            if math.sin(angle.item()) > 1e-4:  # otherwise (anti)parallel: the great circle is the line, or not unique
                path = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)
        return self.decode(path, y)

    @torch.no_grad()
    def latent_traversal(
        self,
        x: Tensor,
        dim: int,
        range_vals: tuple[float, float] = (-3.0, 3.0),
        steps: int = 10,
        y: Tensor | int | None = None,
    ) -> Tensor:
        """Decode the posterior mean of one example with one dimension set to each of `steps` values.

        Args:
            x: One example (*shape) or one in a batch (1, *shape).
            dim: Position in the flattened latent.
            range_vals: First and last value.
            steps: How many values, >= 1.
            y: The example's label.

        Returns:
            Shape (steps, *shape).

        Raises:
            ValueError: if `dim` is not in [0, latent dimensions), `steps` is below 1, or `x` holds several examples.
        """
        num_dims = math.prod(self.latent_shape)
        if not 0 <= dim < num_dims:
            raise ValueError(f"dim must be in [0, {num_dims}), the latent dimensions; got {dim}")
        check_range("steps", steps, at_least=1, whole=True)
        z = self.encode(self._single(x), y).mean.flatten(1).repeat(steps, 1)
        z[:, dim] = torch.linspace(*range_vals, steps, device=z.device, dtype=z.dtype)
        return self.decode(z.reshape(steps, *self.latent_shape), y)

    def _labels(self, y: Tensor | Sequence[int] | int | None, num: int) -> Tensor | None:
        """Labels of `num` examples as a tensor; one label stands for all."""
        if y is None:
            return None
        labels = torch.as_tensor(y, device=next(self.parameters()).device)
        labels = labels[None] if labels.ndim == 0 else labels
        return labels.expand(num, *labels.shape[1:]) if len(labels) == 1 else labels

    def _batched(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            raise ValueError(f"expected x as a tensor, got a {type(x).__name__}; torch.as_tensor makes one of an array")
        if not x.is_floating_point():
            raise ValueError(f"expected x of floats, got {x.dtype}; bytes are x.float() / 255")
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
