"""The base of the quantisers, and how gradients pass through one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from vaebench.core import at_least_float32

Gradient = Literal["straight_through", "rotation"]


class Quantized(NamedTuple):
    """A grid of vectors after quantisation.

    Attributes:
        z: The code of each vector, with the gradient's way to the vector; shape (B, D, h, w).
        codes: Its number, int64, shape (B, h, w), or (B, Q, h, w) where each vector has Q codes.
        losses: What training adds to the distortion, by name: sums over positions and channels, shape (B,).
    """

    z: Tensor
    codes: Tensor
    losses: Mapping[str, Tensor]


class QuantizerModule(nn.Module):
    """Base of what a description builds.

    Attributes:
        dim: D, length of a vector.
        num_codes: K, codes that a position's number may name, >= 2.
        depth: Q, codes of each vector; with 1 there is no dimension for it.
        couples_batch: Whether an example's losses depend on the others of its batch.
    """

    dim: int
    num_codes: int
    depth: int = 1
    couples_batch: bool = False

    def quantize(self, z: Tensor) -> Quantized:
        """Quantise vectors z of shape (B, D, h, w) in float32 or better."""
        raise NotImplementedError

    def embed(self, codes: Tensor) -> Tensor:
        """Return the vectors that codes stand for, shape (B, D, h, w), from (B, h, w) or (B, Q, h, w)."""
        raise NotImplementedError

    def start(self, z: Tensor) -> None:
        """Place the codes where vectors of the training split lie, before the first step; z of shape (B, D, h, w)."""

    def update(self, z: Tensor, codes: Tensor | None = None) -> None:
        """Move what no gradient reaches, after a step.

        Args:
            z: This process's vectors, shape (B, D, h, w).
            codes: Their codes, shape (B, h, w) or (B, Q, h, w), which need not be looked up again; None where unknown.
        """

    def forward(self, z: Tensor) -> Quantized:
        """Quantise z of shape (B, D, h, w). Distances are computed in float32 or better, also under autocast."""
        with torch.autocast(z.device.type, enabled=False):
            return self.quantize(at_least_float32(z))


class Quantizer(Protocol):
    """A description from which a model builds the module between its encoder and its decoder."""

    @property
    def dim(self) -> int:
        """Length of a code's vector."""
        ...

    def build(self) -> QuantizerModule:
        """Return a new module."""
        ...


def straight_through(z: Tensor, code: Tensor) -> Tensor:
    """Return the code, shape (B, D, h, w), whose gradient in z is the identity's.

    References:
        Neural Discrete Representation Learning (van den Oord et al., 2017), https://arxiv.org/abs/1711.00937 (3.2)
    """
    return z + (code - z).detach()


def rotation(z: Tensor, code: Tensor) -> Tensor:
    """Return the code, shape (B, D, h, w), as a constant rotation and scaling of z, whose gradient is that map's.

    The gradient keeps its angle to the code: it reaches z turned as the code would be turned into z.

    References:
        Restructuring Vector Quantization with the Rotation Trick (Fifty et al., 2024), https://arxiv.org/abs/2410.06424
    Args:
        z: Shape (B, D, h, w).
        code: Likewise.
    """
    norm, norm_of_code = (v.detach().norm(dim=1, keepdim=True).clamp_min(1e-6) for v in (z, code))
    a, b = z.detach() / norm, code.detach() / norm_of_code
    r = a + b
    r = r / r.norm(dim=1, keepdim=True).clamp_min(1e-6)
    reflected = z - 2 * r * (r * z).sum(1, keepdim=True)  # (I - 2 r r^T + 2 b a^T) z rotates a into b
    return norm_of_code / norm * (reflected + 2 * b * (a * z).sum(1, keepdim=True))


GRADIENTS: dict[str, Any] = {"straight_through": straight_through, "rotation": rotation}


def vectors_of(z: Tensor) -> Tensor:
    """Return the vectors of a grid (B, D, h, w) as rows, shape (B h w, D)."""
    return z.movedim(1, -1).reshape(-1, z.shape[1])


def per_example(squared: Tensor) -> Tensor:
    """Sum over all but the batch, shape (B,)."""
    return squared.flatten(1).sum(1)


def perplexity(codes: Tensor, num_codes: int) -> Tensor:
    """Return exp of the entropy of how often each code is used, from 1 to `num_codes`: a scalar."""
    counts = uses(codes, num_codes)
    p = counts / counts.sum()
    return torch.exp(-torch.special.xlogy(p, p).sum())


def uses(codes: Tensor, num_codes: int) -> Tensor:
    """Return how often each code occurs, shape (K,)."""
    ones = torch.ones(codes.numel(), device=codes.device)
    return torch.zeros(num_codes, device=codes.device).index_add_(0, codes.flatten(), ones)
