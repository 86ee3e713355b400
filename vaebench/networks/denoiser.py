"""A small network that predicts the noise in a vector."""

from __future__ import annotations

import math

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
        half = self.hidden_dim // 2
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=x.device) / half)
        angles = t.to(x.dtype)[:, None] * frequencies.to(x.dtype)
        known = [angles.sin(), angles.cos()] if context is None else [angles.sin(), angles.cos(), context]
        condition = self.condition(torch.cat(known, -1))
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
