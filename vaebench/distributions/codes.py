"""Distributions over grids of codes: the point that a quantiser chooses, and the uniform distribution."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, register_kl

from vaebench.distributions.quantizers.quantizer import Quantizer


class CodeGrid(Distribution):
    """All probability on one grid of codes, an event being (D, h, w): the vectors that the codes stand for.

    Unpacks as `mean, log_var` with a log-variance of minus infinity. It is a distribution over finitely many grids, so
    that its log-probabilities and its KL divergence to another distribution over them exist.

    Attributes:
        z_e: What the encoder returned, shape (B, D, h, w).
        codes: Numbers of the codes, shape (B, h, w) or (B, Q, h, w).
        losses: What training adds to the distortion, by name, each of shape (B,).

    Args:
        z_e: As above.
        z: The codes' vectors, with gradients to `z_e`, shape (B, D, h, w).
        codes: As above.
        losses: As above.
    """

    has_rsample = True
    arg_constraints = {}  # noqa: RUF012 - torch's own class attribute

    def __init__(self, z_e: Tensor, z: Tensor, codes: Tensor, losses: Mapping[str, Tensor]) -> None:
        self.z_e, self.z, self.codes, self.losses = z_e, z, codes, losses
        super().__init__(z.shape[:1], z.shape[1:], validate_args=False)

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.z, torch.full_like(self.z, -math.inf)))

    def __getitem__(self, index: int) -> Tensor:
        return tuple(self)[index]

    @property
    def mean(self) -> Tensor:
        """Shape (B, D, h, w)."""
        return self.z

    @property
    def variance(self) -> Tensor:
        """Zero, shape (B, D, h, w)."""
        return torch.zeros_like(self.z)

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Return the vectors, with gradients; shape (*sample_shape, B, D, h, w)."""
        return self.z.expand(*sample_shape, *self.z.shape)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Return the vectors, without gradients."""
        return self.rsample(sample_shape).detach()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability: 0 for these vectors, minus infinity for others; shape (..., B)."""
        is_same = (value == self.z).flatten(-3).all(-1)
        return torch.where(is_same, 0.0, -math.inf).to(self.z.dtype)


class UniformCodes(Distribution):
    """Every grid of codes with the same probability, K^-(Q h w), an event being (D, h, w).

    Args:
        num_codes: K.
        num_positions: Q h w, how many codes a grid holds.
        zeros: Gives event shape, dtype and device; shape (D, h, w).
    """

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, num_codes: int, num_positions: int, zeros: Tensor) -> None:
        self.nats, self.zeros = num_positions * math.log(num_codes), zeros
        super().__init__(torch.Size(), zeros.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Zeros, shape (D, h, w)."""
        return self.zeros

    def expand(self, batch_shape: torch.Size | Sequence[int], _instance: Distribution | None = None) -> UniformCodes:
        """Return itself, which serves every batch."""
        return self

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of the vectors of any grid of codes, nats, shape (...)."""
        return value.new_full(value.shape[:-3], -self.nats)


@register_kl(CodeGrid, UniformCodes)
def _kl(q: CodeGrid, p: UniformCodes) -> Tensor:
    return q.z.new_full(q.batch_shape, p.nats)


@dataclass(frozen=True)
class QuantizedPosterior:
    """The codes nearest to what a 1x1 convolution makes of the encoder's features.

    Args:
        quantizer: Description of the quantiser.
        projects: Whether there is this convolution; without it the features are quantised as they are.
    """

    quantizer: Quantizer
    projects: bool = True

    def build(self, num_features: int, latent_dim: int) -> CodesHead:
        """Return the module: features (B, F, h, w) -> CodeGrid over (B, D, h, w)."""
        return CodesHead(num_features, self.quantizer, self.projects)


class CodesHead(nn.Module):
    """From features to the nearest codes.

    Attributes:
        projection: (B, F, h, w) -> (B, D, h, w).
        quantizer: The quantiser.
    """

    def __init__(self, num_features: int, quantizer: Quantizer, projects: bool = True) -> None:
        super().__init__()
        self.quantizer = quantizer.build()
        self.projection = nn.Conv2d(num_features, self.quantizer.dim, 1) if projects else nn.Identity()

    def forward(self, features: Tensor) -> CodeGrid:
        """Quantise features of shape (B, F, h, w)."""
        return self.from_vectors(self.projection(features))

    def from_vectors(self, z_e: Tensor) -> CodeGrid:
        """Quantise vectors of shape (B, D, h, w)."""
        return CodeGrid(z_e, *self.quantizer(z_e))


class UniformCodesHead(nn.Module):
    """p(z) that gives every grid of codes the same probability.

    Args:
        num_codes: K.
        shape: Shape of the vectors, (D, h, w).
        depth: Q, codes of each position.
    """

    zeros: Tensor

    def __init__(self, num_codes: int, shape: Sequence[int], depth: int) -> None:
        super().__init__()
        self.num_codes, self.num_positions = num_codes, depth * math.prod(shape[1:])
        self.register_buffer("zeros", torch.zeros(*shape), persistent=False)

    def forward(self) -> UniformCodes:
        """Return p(z)."""
        return UniformCodes(self.num_codes, self.num_positions, self.zeros)
