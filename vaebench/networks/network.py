"""What every network description offers, and the activations by name."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from vaebench.messages import did_you_mean

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


class Encoder(nn.Module):
    """A trunk: x (B, *shape) -> features (B, num_features)."""

    num_features: int

    def forward(self, x: Tensor) -> Tensor:
        """Features, shape (B, num_features)."""
        raise NotImplementedError


class Network(Protocol):
    """A description from which a model builds the trunks that it needs."""

    def encoder(self, shape: tuple[int, ...]) -> Encoder:
        """Return a trunk for examples of `shape`."""
        ...

    def decoder(self, latent_dim: int, shape: tuple[int, ...]) -> nn.Module:
        """Return a module z (B, latent_dim) -> (B, *shape), without an output nonlinearity."""
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
