"""Residual blocks that may take a context."""

from __future__ import annotations

from torch import Tensor, nn

from vaebench.networks.conditioning import Condition, Injection, Stack, StackBuilder
from vaebench.networks.images import Size, add_crop, group_norm
from vaebench.networks.network import activation
from vaebench.networks.squeeze_excitation import SqueezeExcitation


class Residual(Injection):
    """shortcut(h) + body(h, context)."""

    def __init__(self, body: Stack, shortcut: nn.Module, out_channels: int) -> None:
        super().__init__()
        self.body, self.shortcut, self.out_channels = body, shortcut, out_channels

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        """Return shape (B, C', H', W')."""
        return self.shortcut(h) + self.body(h, context if self.body.context_dim else None)


def bottleneck(channels: int, hidden_channels: int) -> Residual:
    """ReLU, 3x3 into fewer channels, ReLU, 1x1 back.

    References:
        Neural Discrete Representation Learning (van den Oord et al., 2017), https://arxiv.org/abs/1711.00937 (4.1)
    """
    body = Stack(
        nn.ReLU(), nn.Conv2d(channels, hidden_channels, 3, 1, 1), nn.ReLU(), nn.Conv2d(hidden_channels, channels, 1)
    )
    return Residual(body, nn.Identity(), channels)


def pre_activation(
    before: int,
    after: int,
    name: str,
    context_dim: int,
    condition: Condition,
    *,
    stride: int = 1,
    up: tuple[Size, Size] | None = None,
    squeeze: bool = False,
) -> Residual:
    """(GroupNorm, activation, 3x3) twice, with a 1x1 shortcut where the shape changes.

    References:
        Identity Mappings in Deep Residual Networks (He et al., 2016), https://arxiv.org/abs/1603.05027
    Args:
        before: Channels of the input.
        after: Channels of the output.
        name: The activation.
        context_dim: Entries of the context, which `film` and `add` inject after each normalisation.
        condition: How the context enters; with `concat` it does not, here.
        stride: 2 halves the size, in the first convolution.
        up: A size and the one, twice as large, to which the block takes it: every pixel twice, and the excess cut off.
        squeeze: Whether squeeze-and-excitation follows the second convolution.
    """
    injected = context_dim if condition != "concat" else 0
    layers, shortcut = StackBuilder(injected, condition), StackBuilder(0, "concat")
    layers.add(group_norm(before))
    layers.activate(activation(name), before)
    if up is not None:
        excess = [target - 2 * size for size, target in zip(*up, strict=True)]
        for branch in (layers, shortcut):
            branch.add(nn.Upsample(scale_factor=2, mode="nearest"))
            add_crop(branch, *excess)
    layers.add(nn.Conv2d(before, after, 3, stride, 1), group_norm(after))
    layers.activate(activation(name), after)
    layers.add(nn.Conv2d(after, after, 3, 1, 1))
    if squeeze:
        layers.add(SqueezeExcitation(after))
    if before != after or stride != 1:
        shortcut.add(nn.Conv2d(before, after, 1, stride))
    return Residual(layers.build(), shortcut.build(), after)
