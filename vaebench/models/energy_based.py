"""What every model that is an energy of its data shares: p(x) proportional to exp(-E(x)), with no latent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import TypedDict

from vaebench.core import Model, Split
from vaebench.energies.learned.network import NetworkEnergy
from vaebench.hardware import collective
from vaebench.messages import check_range
from vaebench.networks import MLP, Network

CHUNK = 1000  # examples read at once
PICTURE_NOISE = 0.015  # of pixels in [0, 1]

ENERGY_MLP = MLP(hidden_dims=(128, 128, 128), activation="silu")


class EnergyComponents(TypedDict, total=False):
    """Arguments of every energy-based model: one with more takes these as `**components: Unpack[EnergyComponents]`."""

    network: Network
    reference_scale: float
    data_noise: float | None


class EnergyBasedModel(Model):
    r"""Base of the energies: p(x) = exp(-E(x)) / Z.

    The network sees u = (x - m) / c, with m the mean of the training examples and c the root mean square of their
    distance from it, per dimension. Chains move in u too, so that a step size means the same for every data set:

    .. math:: E(x) = f(u) + |u|^2 / (2 s^2)

    What a sampler draws are values of u, shape (N, D); `decode` makes examples of them.

    Pixels that are the same in all pictures, or have a few grey values, have no density. Training adds noise to its
    examples, and what is learned is the density of noisy data.

    References:
        On the Anatomy of MCMC-Based Maximum Likelihood Learning of Energy-Based Models (Nijkamp et al., 2020),
        https://arxiv.org/abs/1903.12370, for the noise; its standard deviation is that of the authors' settings for
        colour pictures, 0.03 for pixels in [-1, 1]: https://github.com/point0bar1/ebm-anatomy
    Attributes:
        energy_function: U(u), what chains draw from.

    Args:
        shape: Shape of one example.
        network: Description of the trunk of f, which ends in one number.
        reference_scale: Standard deviation s of the Gaussian that f tilts, in units of c, > 0; see `NetworkEnergy`.
        data_noise: Standard deviation of the noise that training adds to examples, in their units, >= 0; null is 0.015
            for pictures, and 0 for everything else.
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
        data_noise: float | None = None,
    ) -> None:
        super().__init__()
        check_range("data_noise", data_noise, at_least=0, below=math.inf, or_null=True)
        self.shape = tuple(shape)
        self.data_noise = (PICTURE_NOISE if len(self.shape) == 3 else 0.0) if data_noise is None else data_noise
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

    def noisy(self, x: Tensor) -> Tensor:
        """u of examples with the noise that training adds, x (B, *shape) -> (B, D)."""
        u = self.standardize(x)
        if self.data_noise == 0:
            return u
        return u + self.data_noise / self.scale * collective.standard_normal(tuple(u.shape), u)

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
