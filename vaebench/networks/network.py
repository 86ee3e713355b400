"""The interface of network descriptions, and the activations by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from vaebench.messages import did_you_mean
from vaebench.networks.conditioning import Condition, Stack

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "glu": lambda: nn.GLU(dim=1),
    "leaky_relu": nn.LeakyReLU,
    "none": nn.Identity,
    "relu": nn.ReLU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


class Encoder(nn.Module):
    """A trunk: x (B, *shape) -> features (B, num_features).

    Attributes:
        num_features: F.
        context_dim: Entries of the context that it needs; 0 for none.
    """

    num_features: int
    context_dim: int = 0

    def features(self, x: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return what each level computes, by its name, from the data to the output.

        Args:
            x: Shape (B, *shape).
            context: What the network is told about each example, shape (B, context_dim); None where that is 0.

        Returns:
            A picture's level C<n> has stride 2^(n - 1): C2 (B, C, ceil(H / 2), ceil(W / 2)), C3, …. The levels of a
            fully connected part are F1 (B, F), F2, ….

        Raises:
            ValueError: if the context does not fit `context_dim`.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Features, shape (B, num_features); arguments as in `features`."""
        raise NotImplementedError


class StackEncoder(Encoder):
    """A trunk that is one stack of layers.

    Args:
        layers: x (B, *shape), or flattened, to (B, num_features).
        num_features: F.
        is_flat: Whether the first layer takes (B, D).
    """

    def __init__(self, layers: Stack, num_features: int, is_flat: bool = False) -> None:
        super().__init__()
        self.layers, self.num_features, self.is_flat = layers, num_features, is_flat
        self.context_dim = layers.context_dim

    def features(self, x: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Each level after its activation."""
        return self.layers.features(x.flatten(1) if self.is_flat else x, context)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Features, shape (B, num_features); arguments as in `features`."""
        return self.layers(x.flatten(1) if self.is_flat else x, context)


class GridEncoder(StackEncoder):
    """The part of an image network that keeps positions: x (B, C, H, W) -> (B, num_features, h, w).

    Attributes:
        size: (h, w).
    """

    def __init__(self, layers: Stack, num_features: int, size: tuple[int, int]) -> None:
        super().__init__(layers, num_features)
        self.size = size


class Network(Protocol):
    """A description from which a model builds the trunks that it needs.

    With `context_dim` above 0 a trunk takes a context as its second argument; `condition` says how it enters, see
    `vaebench.networks.conditioning`.
    """

    def encoder(self, shape: tuple[int, ...], context_dim: int = 0, condition: Condition = "concat") -> Encoder:
        """Return a trunk for examples of `shape`: (B, *shape), context (B, context_dim) -> (B, num_features)."""
        ...

    def decoder(
        self, latent_dim: int, shape: tuple[int, ...], context_dim: int = 0, condition: Condition = "concat"
    ) -> nn.Module:
        """Return a module z (B, latent_dim), context (B, context_dim) -> (B, *shape), which ends in a linear layer."""
        ...


class GridNetwork(Network, Protocol):
    """A description of an image network whose two trunks can also end and begin with a grid."""

    def grid_encoder(self, shape: tuple[int, ...]) -> GridEncoder:
        """Return a trunk (B, C, H, W) -> (B, F, h, w)."""
        ...

    def grid_decoder(self, latent_channels: int, shape: tuple[int, ...]) -> nn.Module:
        """Return a module (B, latent_channels, h, w) -> (B, C, H, W)."""
        ...


def activation(name: str) -> nn.Module:
    """Return a new activation module.

    Raises:
        ValueError: if the name is not one of `ACTIVATIONS`.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: unknown name '{name}'{did_you_mean(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def check_widths(name: str, widths: tuple[int, ...]) -> None:
    """Refuse widths below 1.

    Raises:
        ValueError: naming the argument.
    """
    if any(width < 1 for width in widths):
        raise ValueError(f"{name} must be widths of at least 1, got {list(widths)}")


def gates(name: str) -> int:
    """How many channels an activation takes for each that it returns: 2 for `glu`, a * sigmoid(b), else 1."""
    return 2 if name == "glu" else 1
