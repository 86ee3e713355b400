r"""How a context enters a network: vectors (B, E) that say what each example is about.

    concat   h' = [h, c]                   at the input; on a picture c is one constant channel for each of its entries
    film     h' = (1 + gamma(c)) h + beta(c)    before every activation, gamma and beta for each channel
    add      h' = h + U c                  before every activation

gamma and beta are linear and start at zero: a network with `film` starts as the same network without context.

References:
    FiLM: Visual Reasoning with a General Conditioning Layer (Perez et al., 2018), https://arxiv.org/abs/1709.07871
Deviations:
    gamma and beta are constant multiples of their linear maps, so that under Adam, which moves all weights alike, beta
    learns faster than gamma. At equal speeds a decoder learns to scale what z says of the class before it learns to
    shift by the label, and a draw from the prior is then often of another class than the label's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from vaebench.messages import check_range, did_you_mean

Condition = Literal["concat", "film", "add"]
CONDITIONS: tuple[str, ...] = get_args(Condition)
GAMMA, BETA = 0.16, 64.0  # gains of FiLM's maps


class Injection(nn.Module):
    """A layer that takes the context: h (B, C, ...), context (B, E) -> (B, C', ...).

    Attributes:
        out_channels: C'.
    """

    out_channels: int

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        """Return h with the context in it."""
        raise NotImplementedError


class Concat(Injection):
    """[h, c] along the channels."""

    def __init__(self, channels: int, context_dim: int) -> None:
        super().__init__()
        self.out_channels = channels + context_dim

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        """Return shape (B, C + E, ...)."""
        context = _like_channels(context, h)
        return torch.cat([h, context.expand(*context.shape[:2], *h.shape[2:])], 1)


class FiLM(Injection):
    r"""(1 + gamma) h + beta, with gamma and beta linear in the context; the identity at the start.

    .. math:: \gamma(c) = 0.16 E^{-1/2} (W_\gamma c + b_\gamma), \quad \beta(c) = 64 E^{-1/2} (W_\beta c + b_\beta)

    for contexts of E entries. Building it draws no random numbers.
    """

    def __init__(self, channels: int, context_dim: int) -> None:
        super().__init__()
        self.out_channels = channels
        self.linear = nn.utils.skip_init(nn.Linear, context_dim, 2 * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        """Return shape (B, C, ...)."""
        gamma, beta = (context.shape[1] ** -0.5 * self.linear(context)).chunk(2, dim=1)
        return h * (1 + GAMMA * _like_channels(gamma, h)) + BETA * _like_channels(beta, h)


class Add(Injection):
    """h + U c."""

    def __init__(self, channels: int, context_dim: int) -> None:
        super().__init__()
        self.out_channels = channels
        self.linear = nn.Linear(context_dim, channels, bias=False)

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        """Return shape (B, C, ...)."""
        return h + _like_channels(self.linear(context), h)


_INJECTIONS: dict[str, type[Concat | FiLM | Add]] = {"concat": Concat, "film": FiLM, "add": Add}


def injection(condition: str, channels: int, context_dim: int) -> Injection:
    """Return a new layer that puts a context of `context_dim` entries into `channels` channels or features.

    Raises:
        ValueError: if the condition is not one of `CONDITIONS`.
    """
    if condition not in _INJECTIONS:
        raise ValueError(f"condition: unknown name '{condition}'{did_you_mean(condition, CONDITIONS)}")
    return _INJECTIONS[condition](channels, context_dim)


class Stack(nn.Sequential):
    """Layers in turn, of which some may take the context.

    Attributes:
        context_dim: Entries of the context that it needs; 0 for none.
        levels: Position of the layer that ends each named level.
    """

    def __init__(
        self, *layers: nn.Module, context_dim: int = 0, levels: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        super().__init__(*layers)
        self.context_dim = context_dim
        self.levels = dict(levels)

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the last layer's output for h of shape (B, ...) and a context of shape (B, context_dim).

        Raises:
            ValueError: if the context is missing, of another shape, or given where none is taken.
        """
        for h in self._outputs(h, context):  # noqa: B007, B020 - only the last output is wanted
            pass
        return h

    def features(self, h: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the output of each level, by its name; arguments as in `forward`."""
        outputs = list(self._outputs(h, context))
        return {name: outputs[position] for name, position in self.levels.items()}

    def _outputs(self, h: Tensor, context: Tensor | None) -> Iterator[Tensor]:
        check_context(context, self.context_dim, h.shape[0])
        for layer in self:
            h = layer(h, context) if isinstance(layer, Injection) else layer(h)
            yield h


class StackBuilder:
    """Lists the layers of a `Stack`, with the injections where the condition asks for them.

    Args:
        context_dim: Entries of the context, >= 0; with 0 nothing is injected.
        condition: One of `CONDITIONS`.
    """

    def __init__(self, context_dim: int, condition: str) -> None:
        check_range("context_dim", context_dim, at_least=0, whole=True)
        if condition not in CONDITIONS:
            raise ValueError(f"condition: unknown name '{condition}'{did_you_mean(condition, CONDITIONS)}")
        self._context_dim, self._condition = context_dim, condition
        self._layers: list[nn.Module] = []
        self._levels: dict[str, int] = {}

    def add(self, *layers: nn.Module) -> None:
        """Append layers of one argument, or layers that take the context."""
        self._layers += layers

    def begin(self, channels: int, num_activations: int) -> int:
        """Inject at the input a concatenation, or what a stack without activations has no other place for.

        Returns: the number of channels after it.
        """
        if self._context_dim == 0 or (self._condition != "concat" and num_activations > 0):
            return channels
        layer = injection(self._condition, channels, self._context_dim)
        self.add(layer)
        return layer.out_channels

    def activate(self, function: nn.Module, channels: int, level: str | None = None) -> None:
        """Append the injection into `channels` channels and the activation, which ends the level of that name."""
        if self._context_dim and self._condition != "concat":
            self.add(injection(self._condition, channels, self._context_dim))
        self.add(function)
        if level is not None:
            self.level(level)

    def level(self, name: str) -> None:
        """Name the output of the last layer so far."""
        self._levels[name] = len(self._layers) - 1

    def build(self) -> Stack:
        """Return the layers so far."""
        return Stack(*self._layers, context_dim=self._context_dim, levels=self._levels)


def check_context(context: Tensor | None, context_dim: int, batch_size: int) -> None:
    """Refuse a context that does not fit.

    Raises:
        ValueError: what was expected, and what came.
    """
    got = "none" if context is None else str(tuple(context.shape))
    if context_dim == 0:
        if context is not None:
            raise ValueError(f"expected no context, since the network was built with context_dim=0; got {got}")
    elif context is None or tuple(context.shape) != (batch_size, context_dim):
        raise ValueError(f"expected a context of shape ({batch_size}, {context_dim}), got {got}")


def _like_channels(context: Tensor, h: Tensor) -> Tensor:
    return context.to(h.dtype).reshape(*context.shape, *(1,) * (h.ndim - 2))
