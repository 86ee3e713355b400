"""Finite scalar quantisation: each channel is rounded to a few levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vaebench.distributions.quantizers.quantizer import Quantized, QuantizerModule, straight_through, vectors_of
from vaebench.hardware import collective
from vaebench.messages import NamedArguments, check_range

SMALLEST_DEVIATION = 1e-6  # of a channel that does not vary


@dataclass(frozen=True)
class FSQ(NamedArguments):
    r"""Channel i is bounded and rounded to one of L_i levels; the code is the grid point, and nothing is learned.

    .. math:: f(z) = h \tanh(z + s) - o, \quad h = \tfrac{(L - 1)(1 + \epsilon)}{2}, \quad
        o = \tfrac12 [L \text{ even}], \quad s = \operatorname{artanh}(o / h), \quad
        \hat z = round(f(z)) / \lfloor L / 2 \rfloor

    References:
        Finite Scalar Quantization: VQ-VAE Made Simple (Mentzer et al., 2024), https://arxiv.org/abs/2309.15505 (3.1);
        the default levels are those of its table 1 for about 1,000 codes
    Deviations:
        1 + epsilon where the paper's listing has 1 - epsilon, so that two levels work; artanh where it has tan, so that
        f(0) = 0 for every number of levels. z is standardised first: a new encoder's z hardly varies, all of it rounds
        to a few codes, and on the digits one of three seeds never left the first of them.
    Args:
        levels: Number of levels of each channel, >= 2; their product is the number of codes.
        epsilon: By how much the range exceeds the outermost levels, > 0.
        decay: Of the running mean and variance by which each channel of z is standardised, >= 0 and < 1; null leaves z
            as it is, as the paper does. 0.9, ours.
    """

    levels: Sequence[int] = (8, 5, 5, 5)
    epsilon: float = 1e-3
    decay: float | None = 0.9

    def __post_init__(self) -> None:
        if not self.levels:
            raise ValueError("levels must name at least one channel, got []")
        for level in self.levels:
            check_range("levels", level, at_least=2, whole=True)
        check_range("epsilon", self.epsilon, above=0, below=1)
        check_range("decay", self.decay, at_least=0, below=1, or_null=True)

    @property
    def dim(self) -> int:
        """Length of a code's vector."""
        return len(self.levels)

    def build(self) -> ScalarGrid:
        """Return a new quantiser."""
        return ScalarGrid(tuple(self.levels), self.epsilon, self.decay)


class ScalarGrid(QuantizerModule):
    """The points of a grid.

    Attributes:
        mean: What is taken from each channel of z before it is bounded, shape (D,).
        variance: The square of what it is then divided by, shape (D,).
    """

    levels: Tensor
    steps: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, levels: tuple[int, ...], epsilon: float, decay: float | None = None) -> None:
        super().__init__()
        self.dim, self.num_codes, self.epsilon, self.decay = len(levels), math.prod(levels), epsilon, decay
        self.register_buffer("mean", torch.zeros(len(levels)))
        self.register_buffer("variance", torch.ones(len(levels)))
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        steps = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("steps", torch.tensor(steps), persistent=False)

    def quantize(self, z: Tensor) -> Quantized:
        """Quantise z of shape (B, D, h, w); no losses."""
        bounded = self.bound(z)
        rounded = straight_through(bounded, bounded.round())
        half = self._column(self.levels // 2)
        codes = ((bounded.detach().round().long() + half) * self._column(self.steps)).sum(1)
        return Quantized(rounded / half, codes, {})

    @torch.no_grad()
    def start(self, z: Tensor) -> None:
        """Take mean and variance from z of shape (B, D, h, w), where they are asked for."""
        if self.decay is not None:
            variance, mean = torch.var_mean(vectors_of(z), 0, correction=0)
            self.mean.copy_(mean)
            self.variance.copy_(variance)

    @torch.no_grad()
    def update(self, z: Tensor, codes: Tensor | None = None) -> None:
        """Let mean and variance follow those of z, shape (B, D, h, w), over all processes."""
        if self.decay is None:
            return
        vectors = vectors_of(z)
        count = collective.total(vectors.new_tensor(len(vectors)))
        mean = collective.total(vectors.sum(0)) / count
        variance = collective.total((vectors - mean).square().sum(0)) / count
        self.mean.lerp_(mean.to(self.mean.dtype), 1 - self.decay)
        self.variance.lerp_(variance.to(self.variance.dtype), 1 - self.decay)

    def bound(self, z: Tensor) -> Tensor:
        """Return f of the standardised z, shape (B, D, h, w).

        Its roundings are the levels -floor(L / 2), …, ceil(L / 2) - 1.
        """
        levels = self._column(self.levels).to(z.dtype)
        half = (levels - 1) * (1 + self.epsilon) / 2
        offset = 0.5 * (levels % 2 == 0)
        z = (z - self._column(self.mean)) / self._column(self.variance.sqrt().clamp_min(SMALLEST_DEVIATION))
        return half * torch.tanh(z + torch.atanh(offset / half)) - offset

    def embed(self, codes: Tensor) -> Tensor:
        """Return codes (B, h, w) as points (B, D, h, w) of [-1, 1]."""
        levels = self._column(self.levels)
        number = codes[:, None] // self._column(self.steps) % levels
        return (number - levels // 2).to(torch.get_default_dtype()) / (levels // 2)

    def _column(self, values: Tensor) -> Tensor:
        return values[None, :, None, None]
