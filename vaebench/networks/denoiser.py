"""Small networks that predict the noise in a vector or a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vaebench.messages import check_range


class Denoiser(nn.Module):
    """Residual blocks of fully connected layers, told the time by sines and cosines.

    References:
        Attention Is All You Need (Vaswani et al., 2017), https://arxiv.org/abs/1706.03762 (section 3.5), for the
        embedding of the time
    Args:
        num_features: D.
        hidden_dim: Units of a block, even, >= 2.
        num_blocks: Residual blocks, >= 1.
        context_dim: Entries of the context; 0 for none.
    """

    def __init__(self, num_features: int, hidden_dim: int = 256, num_blocks: int = 3, context_dim: int = 0) -> None:
        super().__init__()
        check_range("hidden_dim", hidden_dim, at_least=2, whole=True)
        check_range("num_blocks", num_blocks, at_least=1, whole=True)
        self.hidden_dim = hidden_dim
        self.first = nn.Linear(num_features, hidden_dim)
        self.condition = nn.Sequential(
            nn.Linear(2 * (hidden_dim // 2) + context_dim, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, hidden_dim)
        )
        self.blocks = nn.ModuleList(_Block(hidden_dim) for _ in range(num_blocks))
        self.last = nn.Sequential(nn.LayerNorm(hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, num_features))

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """Return a vector for each, shape (B, D).

        Args:
            x: Shape (B, D).
            t: Times in steps, shape (B,).
            context: What the network is told about each vector, shape (B, context_dim); None where that is 0.
        """
        times = sinusoids(t, self.hidden_dim, x)
        condition = self.condition(times if context is None else torch.cat([times, context], -1))
        h = self.first(x)
        for block in self.blocks:
            h = block(h, condition)
        out: Tensor = self.last(h)
        return out


class _Block(nn.Module):
    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_dim)
        self.condition = nn.Linear(hidden_dim, hidden_dim)
        self.layers = nn.Sequential(
            nn.SiLU(), nn.Linear(hidden_dim, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, hidden_dim)
        )

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        out: Tensor = h + self.layers(self.norm(h) + self.condition(condition))
        return out


class PictureDenoiser(nn.Module):
    """Residual blocks of convolutions at the picture's own size, which receives the context as further channels.

    Args:
        shape: (C, H, W).
        hidden_dim: Channels of a block, >= 2.
        num_blocks: Residual blocks, >= 1.
        context_dim: Channels of the context; 0 for none.
    """

    def __init__(self, shape: Sequence[int], hidden_dim: int = 64, num_blocks: int = 3, context_dim: int = 0) -> None:
        super().__init__()
        check_range("hidden_dim", hidden_dim, at_least=2, whole=True)
        check_range("num_blocks", num_blocks, at_least=1, whole=True)
        self.hidden_dim = hidden_dim
        self.first = nn.Conv2d(shape[0] + context_dim, hidden_dim, 3, padding=1)
        self.condition = nn.Sequential(
            nn.Linear(2 * (hidden_dim // 2), hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, hidden_dim)
        )
        self.blocks = nn.ModuleList(_PictureBlock(hidden_dim) for _ in range(num_blocks))
        self.last = nn.Sequential(_norm(hidden_dim), nn.SiLU(), nn.Conv2d(hidden_dim, shape[0], 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """Return a picture for each, shape (B, C, H, W).

        Args:
            x: Shape (B, C, H, W).
            t: Times in steps, shape (B,).
            context: Shape (B, context_dim, H, W); None where context_dim is 0.
        """
        condition = self.condition(sinusoids(t, self.hidden_dim, x))
        h = self.first(x if context is None else torch.cat([x, context], 1))
        for block in self.blocks:
            h = block(h, condition)
        out: Tensor = self.last(h)
        return out


class _PictureBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.condition = nn.Linear(channels, channels)
        self.layers = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        out: Tensor = h + self.layers(self.norm(h) + self.condition(condition)[:, :, None, None])
        return out


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(8, channels), channels)


def sinusoids(t: Tensor, dim: int, like: Tensor) -> Tensor:
    """Return sines and cosines of times t (B,), shape (B, 2 * (dim // 2)), with the dtype of `like`."""
    half = dim // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=like.device) / half)
    angles = t.to(like.dtype)[:, None] * frequencies.to(like.dtype)
    return torch.cat([angles.sin(), angles.cos()], -1)


def conditional_denoiser(shape: Sequence[int], hidden_dim: int, num_blocks: int, context_dim: int) -> nn.Module:
    """Return the network that suits the shape of an example.

    Raises:
        ValueError: if examples are neither vectors (D,) nor pictures (C, H, W).
    """
    if len(shape) == 1:
        return Denoiser(shape[0], hidden_dim, num_blocks, context_dim)
    if len(shape) == 3:
        return PictureDenoiser(shape, hidden_dim, num_blocks, context_dim)
    raise ValueError(f"a denoiser takes vectors (D,) or pictures (C, H, W), got examples of shape {tuple(shape)}")
