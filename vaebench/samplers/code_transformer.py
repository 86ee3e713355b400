"""A causal transformer over the codes of a VQ-VAE."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from vaebench.messages import check_range
from vaebench.samplers.code_prior import Cache, CausalCodes, CodePriorSampler, CodePriorSettings


class CodeTransformerSampler(CodePriorSampler):
    """A prior over grids of codes by causal self-attention, fitted after training.

    A draw keeps the keys and values of earlier codes, so that each code costs one pass over itself only.

    References:
        Taming Transformers for High-Resolution Image Synthesis (Esser et al., 2021), https://arxiv.org/abs/2012.09841
        (section 3.2, a transformer as prior over codes); Language Models are Unsupervised Multitask Learners (Radford
        et al., 2019), for the blocks: normalisation first, GELU, four times as wide within
    Deviations:
        Four blocks of 128 channels with 4 heads by default, for grids of some 50 codes.
    Args:
        hidden_channels: Channels of a block, a multiple of `num_heads`.
        num_blocks: Blocks, >= 1.
        num_heads: Heads of the attention, >= 1.
        dropout: Share of channels left out in training, in [0, 1); 0.1 as in GPT-2.
        **settings: Those of `CodePriorSampler`.
    """

    def __init__(
        self,
        *,
        hidden_channels: int = 128,
        num_blocks: int = 4,
        num_heads: int = 4,
        dropout: float = 0.1,
        **settings: Unpack[CodePriorSettings],
    ) -> None:
        super().__init__(**settings)
        check_range("hidden_channels", hidden_channels, at_least=1, whole=True)
        check_range("num_blocks", num_blocks, at_least=1, whole=True)
        check_range("num_heads", num_heads, at_least=1, whole=True)
        check_range("dropout", dropout, at_least=0, below=1)
        if hidden_channels % num_heads:
            raise ValueError(f"hidden_channels must be a multiple of num_heads, {num_heads}; got {hidden_channels}")
        self.hidden_channels, self.num_blocks = hidden_channels, num_blocks
        self.num_heads, self.dropout = num_heads, dropout

    def distribution(self, num_codes: int, codes_shape: tuple[int, ...]) -> CausalCodes:
        """Return the transformer over codes of shape (h, w), or (Q, h, w)."""
        return _Transformer(
            num_codes,
            codes_shape,
            self.hidden_channels,
            self.num_blocks,
            self.num_heads,
            self.dropout,
            self.num_classes or 1,
        )


class _Transformer(CausalCodes):
    def __init__(
        self,
        num_codes: int,
        codes_shape: tuple[int, ...],
        channels: int,
        num_blocks: int,
        num_heads: int,
        dropout: float,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.shape = (math.prod(codes_shape),)
        self.num_codes = num_codes
        self.depth = math.prod(codes_shape[:-2])
        self.starts = nn.Embedding(num_classes, channels)  # the label's vector precedes the first code
        self.embedding = nn.Embedding(self.depth * num_codes, channels)
        self.positions = nn.Embedding(math.prod(codes_shape), channels)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(channels, num_heads, dropout) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(channels)
        self.heads = nn.Linear(channels, self.depth * num_codes)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, codes: Tensor, y: Tensor | None = None) -> Tensor:
        """Logits, shape (N, L, K), of codes (N, L); L may be the first codes only."""
        return self._logits(self._embedded(codes, y, 0, codes.shape[1]), 0, None)

    def next_logits(self, codes: Tensor, position: int, y: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """Logits of one position, shape (N, K), from the code before it and the cached keys of the others."""
        first = 0 if cache is None else position
        return self._logits(self._embedded(codes, y, first, position + 1), first, cache)[:, -1]

    def _embedded(self, codes: Tensor, y: Tensor | None, first: int, last: int) -> Tensor:
        """What stands before each of the positions from `first` to `last`, shape (N, last - first, C)."""
        label = torch.zeros(len(codes), dtype=torch.long, device=codes.device) if y is None else y
        before = torch.arange(max(first - 1, 0), last - 1, device=codes.device)
        h = self.embedding(codes[:, before] + self.num_codes * (before % self.depth))
        if first == 0:
            h = torch.cat([self.starts(label)[:, None], h], 1)
        return self.drop(h + self.positions.weight[first:last])

    def _logits(self, h: Tensor, first: int, cache: Cache | None) -> Tensor:
        for number, block in enumerate(self.blocks):
            h = block(h, number, cache)
        book = torch.arange(first, first + h.shape[1], device=h.device) % self.depth
        logits = self.heads(self.norm(h)).unflatten(-1, (self.depth, self.num_codes))
        return logits[:, torch.arange(h.shape[1], device=h.device), book]


class _Block(nn.Module):
    """h + attention(norm(h)), then h + mlp(norm(h))."""

    def __init__(self, channels: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.norm, self.norm_mlp = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.queries_keys_values = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.drop = nn.Dropout(dropout)

    def forward(self, h: Tensor, number: int, cache: Cache | None) -> Tensor:
        """Shape (N, L, C); with a cache, h holds the newest position only, and sees those in the cache too."""
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in self.queries_keys_values(self.norm(h)).chunk(3, dim=-1)
        )
        if cache is not None:
            if number in cache:
                k, v = (torch.cat([old, new], 2) for old, new in zip(cache[number], (k, v), strict=True))
            cache[number] = (k, v)
        attended = F.scaled_dot_product_attention(
            q, k, v, dropout_p=self.dropout if self.training else 0.0, is_causal=cache is None
        )
        h = h + self.drop(self.out(attended.transpose(1, 2).flatten(2)))
        return h + self.drop(self.mlp(self.norm_mlp(h)))
