"""What every model that is an energy of its data shares: p(x) proportional to exp(-E(x)), with no latent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from vaebench.core import Model, Split
from vaebench.energies.learned.network import NetworkEnergy
from vaebench.networks import MLP, Network

CHUNK = 1000  # examples read at once

ENERGY_MLP = MLP(hidden_dims=(128, 128, 128), activation="silu")


class EnergyBasedModel(Model):
    r"""Base of the energies: p(x) = exp(-E(x)) / Z.

    The network sees u = (x - m) / c, with m the mean of the training examples and c the root mean square of their
    distance from it, per dimension. Chains move in u too, so that a step size means the same for every data set:

    .. math:: E(x) = f(u) + |u|^2 / (2 s^2)

    What a sampler draws are values of u, shape (N, D); `decode` makes examples of them.

    Attributes:
        energy_function: U(u), what chains draw from.

    Args:
        shape: Shape of one example.
        network: Description of the trunk of f, which ends in one number.
        reference_scale: Standard deviation s of the Gaussian that f tilts, in units of c, > 0; see `NetworkEnergy`.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset({"energy"})
    why_not: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "posterior": "an energy of x has no latent",
            "likelihood": "an energy of x has no latent, and p(x) is not normalised",
            "prior": "an energy of x has no latent",
            "rate": "an energy of x has no latent, and so no ELBO",
        }
    )
    location: Tensor
    scale: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        *,
        network: Network = ENERGY_MLP,
        reference_scale: float = 2.0,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.energy_function = NetworkEnergy(self.shape, network, reference_scale)
        self.register_buffer("location", torch.zeros(math.prod(self.shape)))
        self.register_buffer("scale", torch.ones(()))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of u, (D,): what samplers draw."""
        return (self.energy_function.num_dims,)

    def energy(self, x: Tensor) -> Tensor:
        """E(x) up to a constant, nats, x (B, *shape) -> (B,)."""
        return self.energy_function(self.standardize(x))

    def standardize(self, x: Tensor) -> Tensor:
        """u, x (B, *shape) -> (B, D)."""
        return (x.flatten(1) - self.location) / self.scale

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Examples from values of u, (..., D) -> (..., *shape)."""
        return (self.location + self.scale * z).reshape(*z.shape[:-1], *self.shape)

    def picture(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Same as `decode`."""
        return self.decode(z, y)

    def draw_labels(self, num_samples: int) -> Tensor | None:
        """Return None, where a conditional model returns labels of shape (num_samples,)."""
        return None

    @torch.no_grad()
    def before_training(self, train: Split) -> None:
        """Find m and c.

        Raises:
            ValueError: if all training examples are the same.
        """
        mean = torch.stack([x.sum(0) for x in _flat(train)]).sum(0) / len(train)
        squares = sum(float((x - mean).square().sum()) for x in _flat(train))
        scale = math.sqrt(squares / (len(train) * len(self.location)))
        if scale == 0:
            raise ValueError("dataset: the training examples are all the same, and an energy needs their spread")
        self.location.copy_(mean)
        self.scale.fill_(scale)


def standardized(model: EnergyBasedModel, split: Split) -> Iterator[Tensor]:
    """Yield a split in standardised coordinates, some examples at a time, float64, shape (B, D)."""
    for x in _flat(split):
        yield (x - model.location) / model.scale


def check_smooth(network: Network) -> None:
    """Refuse a network whose second derivatives are 0 wherever they exist: score matching would see no curvature.

    Raises:
        ValueError: naming the key.
    """
    name = getattr(network, "activation", None)
    if name in ("relu", "leaky_relu"):
        raise ValueError(
            f"network.activation: score matching needs second derivatives, and those of {name} are 0; choose silu, "
            "softplus or tanh"
        )


def _flat(split: Split) -> Iterator[Tensor]:
    for rows in torch.arange(len(split)).split(CHUNK):
        yield split.batch(rows).x.flatten(1).double()
