"""A PixelCNN over the codes of a VQ-VAE."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from vaebench.messages import check_range
from vaebench.samplers.code_prior import Cache, CausalCodes, CodePriorSampler, CodePriorSettings


class PixelCNNSampler(CodePriorSampler):
    """A prior over grids of codes by masked convolutions, fitted after training.

    A draw keeps the inputs of each convolution, so that each code costs one column of each layer.

    References:
        Pixel Recurrent Neural Networks (van den Oord et al., 2016), https://arxiv.org/abs/1601.06759 (sections 3.4, 3.5
        and 4; table 1): a 7x7 layer, 15 residual blocks with 128 channels, a prior over codes as in
        https://arxiv.org/abs/1711.00937 (section 3.3)
    Deviations:
        Five blocks by default, for grids of some 50 codes; codes enter by a learned vector instead of their number.
        A label's vector is added after the first layer. The Q codes of a position stand side by side, as Q columns, and
        kernels are as many times as wide.
    Args:
        hidden_channels: Channels of a block, an even number.
        num_blocks: Residual blocks, >= 0.
        **settings: Those of `CodePriorSampler`.
    """

    def __init__(
        self, *, hidden_channels: int = 128, num_blocks: int = 5, **settings: Unpack[CodePriorSettings]
    ) -> None:
        super().__init__(**settings)
        check_range("hidden_channels", hidden_channels, at_least=2, whole=True)
        check_range("num_blocks", num_blocks, at_least=0, whole=True)
        self.hidden_channels, self.num_blocks = hidden_channels, num_blocks

    def distribution(self, num_codes: int, codes_shape: tuple[int, ...]) -> CausalCodes:
        """Return the convolutions over codes of shape (h, w), or (Q, h, w)."""
        return _PixelCNN(num_codes, codes_shape, self.hidden_channels, self.num_blocks, self.num_classes)


class _PixelCNN(CausalCodes):
    def __init__(
        self, num_codes: int, size: tuple[int, ...], channels: int, num_blocks: int, num_classes: int | None
    ) -> None:
        super().__init__()
        self.shape = (math.prod(size),)
        self.label = None if num_classes is None else nn.Embedding(num_classes, channels)
        self.num_codes = num_codes
        self.depth = math.prod(size[:-2])
        self.height, self.row = size[-2], size[-1] * self.depth
        self.embedding = nn.Embedding(self.depth * num_codes, channels)
        self.first = _MaskedConv(channels, channels, 7, self.depth, sees_itself=False)
        self.blocks = nn.ModuleList(_Block(channels, self.depth) for _ in range(num_blocks))
        self.last = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, num_codes, 1)
        )

    def forward(self, codes: Tensor, y: Tensor | None = None) -> Tensor:
        """Logits, shape (N, L, K), of codes (N, L); L may hold the first rows only."""
        book = torch.arange(codes.shape[1], device=codes.device) % self.depth
        h = self.embedding(codes + self.num_codes * book).unflatten(1, (-1, self.row)).movedim(-1, 1)
        h = self.first(h)
        if self.label is not None and y is not None:
            h = h + self.label(y)[:, :, None, None]
        for block in self.blocks:
            h = h + block(h)
        return self.last(h).flatten(2).transpose(1, 2)

    def next_logits(self, codes: Tensor, position: int, y: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """Logits of one position, shape (N, K), from the code before it and what is kept of the others.

        Kept are, for each masked convolution, its inputs so far and its weights.
        """
        if cache is None:
            seen = (position // self.row + 1) * self.row
            return self(codes[:, :seen], y)[:, position]
        blocks = [block for block in self.blocks if isinstance(block, _Block)]
        if not cache:
            masked = (self.first, *(block.masked for block in blocks))
            cache.update({i: conv.nothing_seen(len(codes), self.height, self.row) for i, conv in enumerate(masked)})
        if position > 0:
            before = position - 1
            code = self.embedding(codes[:, before] + self.num_codes * (before % self.depth))
            self.first.see(code, cache[0], divmod(before, self.row))
        place = divmod(position, self.row)
        h = self.first.column(cache[0], place)
        if self.label is not None and y is not None:
            h = h + self.label(y)
        for number, block in enumerate(blocks, 1):
            h = h + block.column(h, cache[number], place)
        return _pointwise(self.last, h)


def _pointwise(layers: Iterable[nn.Module], h: Tensor) -> Tensor:
    """Return what activations and 1x1 convolutions make of one column, (N, C) -> (N, C')."""
    for layer in layers:
        h = F.linear(h, layer.weight.flatten(1), layer.bias) if isinstance(layer, nn.Conv2d) else layer(h)
    return h


class _MaskedConv(nn.Conv2d):
    """A convolution of the columns before each one, and of itself where `sees_itself`; `depth` columns a position.

    `forward` convolves whole pictures. For columns in turn there are `nothing_seen`, `see` and `column`.
    """

    mask: Tensor

    def __init__(self, before: int, after: int, kernel_size: int, depth: int, sees_itself: bool) -> None:
        size = (kernel_size, (kernel_size - 1) * depth + 1)
        super().__init__(before, after, size, padding=(size[0] // 2, size[1] // 2))
        mask = torch.zeros(math.prod(size))
        mask[: len(mask) // 2 + sees_itself] = 1
        self.register_buffer("mask", mask.reshape(size), persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        """Shape (N, C', h, w)."""
        return F.conv2d(h, self.weight * self.mask, self.bias, padding=self.padding)

    def nothing_seen(self, num: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return what `see` fills for `num` pictures: inputs with their margins, (num, h', w', C), and weights.

        The weights are those of the rows down to the column's own, (C', taps * C).
        """
        above, aside = self.kernel_size[0] // 2, self.kernel_size[1] // 2
        inputs = self.weight.new_zeros(num, height + above, width + 2 * aside, self.in_channels)
        weight = (self.weight * self.mask)[:, :, : above + 1]
        return inputs, weight.movedim(1, -1).flatten(1)

    def see(self, h: Tensor, kept: tuple[Tensor, Tensor], place: tuple[int, int]) -> None:
        """Note the input (N, C) at a place, its row and column."""
        above, aside = self.kernel_size[0] // 2, self.kernel_size[1] // 2
        kept[0][:, place[0] + above, place[1] + aside] = h

    def column(self, kept: tuple[Tensor, Tensor], place: tuple[int, int]) -> Tensor:
        """Return the output at a place from the inputs noted so far, shape (N, C')."""
        inputs, weight = kept
        row, left = place
        window = inputs[:, row : row + self.kernel_size[0] // 2 + 1, left : left + self.kernel_size[1]]
        return F.linear(window.flatten(1), weight, self.bias)


class _Block(nn.Sequential):
    """A residual block's layers, of half as many channels within."""

    def __init__(self, channels: int, depth: int) -> None:
        half = max(1, channels // 2)
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, half, 1),
            nn.ReLU(),
            _MaskedConv(half, half, 3, depth, sees_itself=True),
            nn.ReLU(),
            nn.Conv2d(half, channels, 1),
        )

    @property
    def masked(self) -> _MaskedConv:
        """The convolution of the columns so far."""
        layer = self[3]
        assert isinstance(layer, _MaskedConv)
        return layer

    def column(self, h: Tensor, kept: tuple[Tensor, Tensor], place: tuple[int, int]) -> Tensor:
        """Return what `forward` makes of the column h (N, C) at a place, and note it."""
        layers = list(self)
        self.masked.see(_pointwise(layers[:3], h), kept, place)
        return _pointwise(layers[4:], self.masked.column(kept, place))
