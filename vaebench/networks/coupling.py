"""Normalising flows with a context: couplings over the pixels of a picture, and splines over vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Coupling(nn.Module):
    r"""An affine map of the pixels of one colour of a checkerboard, given those of the other and a context.

    .. math:: y = m x + (1 - m) (x \exp(s(m x, c)) + t(m x, c)), \quad |s| < 2

    s and t are zero at the start, so that the map begins as the identity.

    References:
        Density estimation using Real NVP (Dinh et al., 2017), https://arxiv.org/abs/1605.08803 (eq. 9)
    Deviations:
        s is bounded by a tanh of fixed range, and nothing is normalised over the batch.
    Args:
        shape: (C, H, W).
        context_channels: Channels of the context, a picture of the same size.
        hidden_channels: Channels of the network of s and t.
        parity: 0 keeps the pixels at which row + column is even, 1 the others.
    """

    mask: Tensor

    def __init__(self, shape: Sequence[int], context_channels: int, hidden_channels: int, parity: int) -> None:
        super().__init__()
        channels, height, width = shape
        rows, columns = torch.arange(height)[:, None], torch.arange(width)
        self.register_buffer("mask", ((rows + columns) % 2 == parity).float(), persistent=False)
        self.entry = nn.Conv2d(channels + context_channels + 1, hidden_channels, 3, padding=1)
        self.hidden = nn.Conv2d(hidden_channels, hidden_channels, 3, padding=1)
        self.exit = nn.Conv2d(hidden_channels, 2 * channels, 3, padding=1)
        nn.init.zeros_(self.exit.weight)
        assert self.exit.bias is not None
        nn.init.zeros_(self.exit.bias)

    def scale_and_shift(self, kept: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return s and t, zero where pixels are kept, each of shape (N, C, H, W)."""
        mask = self.mask.expand(len(kept), 1, -1, -1)
        h = self.entry(torch.cat([kept, context, mask], 1))
        h = h + self.hidden(F.relu(h))
        s, t = self.exit(F.relu(h)).chunk(2, 1)
        return 2 * torch.tanh(s / 2) * (1 - self.mask), t * (1 - self.mask)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return y, shape (N, C, H, W), and log |det dy/dx|, shape (N,)."""
        s, t = self.scale_and_shift(x * self.mask, context)
        return x * s.exp() + t, s.flatten(1).sum(1)

    def inverse(self, y: Tensor, context: Tensor) -> Tensor:
        """Return x, shape (N, C, H, W)."""
        s, t = self.scale_and_shift(y * self.mask, context)
        return (y - t) * (-s).exp()


class PictureFlow(nn.Module):
    """Couplings with alternating colours of the checkerboard.

    Args:
        shape: (C, H, W).
        context_channels: Channels of the context.
        num_transforms: Couplings, >= 1.
        hidden_features: Width of each coupling's network, the first entry.
    """

    def __init__(
        self, shape: Sequence[int], context_channels: int, num_transforms: int, hidden_features: Sequence[int]
    ) -> None:
        super().__init__()
        couplings = [Coupling(shape, context_channels, hidden_features[0], i % 2) for i in range(num_transforms)]
        self.couplings = nn.ModuleList(couplings)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise of x, shape (N, C, H, W), and log |det|, shape (N,)."""
        total = x.new_zeros(len(x))
        for coupling in self.couplings:
            x, log_det = coupling(x, context)
            total = total + log_det
        return x, total

    def inverse(self, noise: Tensor, context: Tensor) -> Tensor:
        """Return x, shape (N, C, H, W)."""
        for coupling in reversed(self.couplings):
            noise = coupling.inverse(noise, context)  # type: ignore[operator]
        return noise


class VectorFlow(nn.Module):
    """Rational-quadratic splines of one half of a vector given the other; the identity outside of [-5, 5].

    References:
        Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032, by zuko
    Args:
        shape: (D,).
        context_channels: Entries of the context.
        num_transforms: Transforms, >= 1.
        hidden_features: Widths of the hidden layers of each transform's network.
    """

    def __init__(
        self, shape: Sequence[int], context_channels: int, num_transforms: int, hidden_features: Sequence[int]
    ) -> None:
        super().__init__()
        from zuko.flows import NSF

        num_features = math.prod(shape)
        self.flow = NSF(
            num_features,
            context_channels,
            transforms=num_transforms,
            hidden_features=tuple(hidden_features),
            passes=2 if num_features > 1 else None,
        )

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise of x, shape (N, D), and log |det|, shape (N,)."""
        return self._transform(context).call_and_ladj(x)

    def inverse(self, noise: Tensor, context: Tensor) -> Tensor:
        """Return x, shape (N, D)."""
        return self._transform(context).inv(noise)

    def _transform(self, context: Tensor) -> Any:
        return self.flow(context).transform


def conditional_flow(
    shape: Sequence[int], context_channels: int, num_transforms: int, hidden_features: Sequence[int]
) -> nn.Module:
    """Return the flow that suits the shape of an example, with the arguments of both.

    Raises:
        ValueError: if examples are neither vectors (D,) nor pictures (C, H, W).
    """
    kinds: dict[int, type[nn.Module]] = {1: VectorFlow, 3: PictureFlow}
    if len(shape) not in kinds:
        raise ValueError(
            f"a conditional flow takes vectors (D,) or pictures (C, H, W), got examples of shape {tuple(shape)}"
        )
    return kinds[len(shape)](shape, context_channels, num_transforms, hidden_features)
