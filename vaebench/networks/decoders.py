"""Decoders as modules from latents to logits or means, for a model of your own.

A model of this package builds its decoder from a `Network`; these are the same networks, built by hand. None ends in a
sigmoid: what they return are the parameters of a likelihood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from vaebench.messages import NamedArguments, check_range
from vaebench.networks.conditioning import Condition
from vaebench.networks.conv import Conv
from vaebench.networks.encoders import Shape, conditioned, create, given, label_sizes, shape_of
from vaebench.networks.labels import LabelEmbedding
from vaebench.networks.mlp import MLP
from vaebench.networks.network import Network
from vaebench.networks.resnet import ResNet


class NetworkDecoder(NamedArguments, nn.Module):
    """The decoder of a network's description.

    Args:
        network: The description.
        output_dim: Shape of what is returned for one latent.
        latent_dim: Number of latent dimensions, >= 1.
        context_dim: Entries of the context, 0 for none.
        condition: How the context enters: concat, film or add.
    """

    def __init__(
        self,
        network: Network,
        output_dim: Shape,
        latent_dim: int,
        context_dim: int = 0,
        condition: Condition = "concat",
    ) -> None:
        super().__init__()
        check_range("latent_dim", latent_dim, at_least=1, whole=True)
        self.network, self.latent_dim, self.output_dim = network, latent_dim, shape_of(output_dim)
        self.context_dim = context_dim
        self.layers = network.decoder(latent_dim, self.output_dim, context_dim, condition)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Return shape (B, *output_dim).

        Args:
            z: Shape (B, latent_dim).
            context: Shape (B, context_dim), or None where that is 0.

        Raises:
            ValueError: if `z` or the context has another shape.
        """
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"expected z of shape (B, {self.latent_dim}), got {tuple(z.shape)}")
        return self.layers(z, context)

    def with_context(self, context_dim: int, condition: Condition = "concat") -> NetworkDecoder:
        """Return a new decoder of the same description that takes a context; no weights are taken over."""
        return NetworkDecoder(self.network, self.output_dim, self.latent_dim, context_dim, condition)


class MLPDecoder(NetworkDecoder):
    """Fully connected layers.

    Args:
        hidden_dims: Widths in the order of the data's flow, from the latent on; nothing is reversed.
        output_dim: Shape of one example.
        latent_dim: Number of latent dimensions, >= 1.
        activation: Name of the activation.
    """

    def __init__(
        self, hidden_dims: Sequence[int], output_dim: Shape, latent_dim: int, activation: str = "relu"
    ) -> None:
        super().__init__(MLP(tuple(hidden_dims)[::-1], activation=activation), output_dim, latent_dim)


class CNNDecoder(NetworkDecoder):
    """Transposed convolutions that each double the picture, to exactly `output_dim`.

    Args:
        hidden_dims: Channels in the order of the data's flow, from the latent on; nothing is reversed.
        output_dim: Shape of one picture, (C, H, W).
        latent_dim: Number of latent dimensions, >= 1.
        activation: Name of the activation.
    """

    def __init__(
        self, hidden_dims: Sequence[int], output_dim: Shape, latent_dim: int, activation: str = "relu"
    ) -> None:
        network = Conv(tuple(hidden_dims)[::-1], hidden_dim=0, activation=activation)
        super().__init__(network, output_dim, latent_dim)


class ResNetDecoder(NetworkDecoder):
    """Residual blocks, of which one in each level doubles the picture, to exactly `output_dim`.

    Args:
        hidden_dims: Channels of the levels in the order of the data's flow, from the latent on.
        output_dim: Shape of one picture, (C, H, W).
        latent_dim: Number of latent dimensions, >= 1.
        activation: Name of the activation.
        num_blocks: Residual blocks in each level, >= 1.
    """

    def __init__(
        self,
        hidden_dims: Sequence[int],
        output_dim: Shape,
        latent_dim: int,
        activation: str = "silu",
        num_blocks: int = 1,
    ) -> None:
        network = ResNet(tuple(hidden_dims)[::-1], num_blocks, hidden_dim=0, activation=activation)
        super().__init__(network, output_dim, latent_dim)


class ConditionalDecoder(NamedArguments, nn.Module):
    """A decoder that is told each example's class.

    The first layer of a finished decoder has no room for a label, so a `NetworkDecoder` is built anew with one. A
    decoder of your own takes the embedded label, shape (B, embed_dim), as its second argument.

    Args:
        decoder: What to condition.
        num_classes: Number of classes.
        embed_dim: Length of the vector that stands for a class.
        condition: How the vector enters a `NetworkDecoder`: concat, film or add.
    """

    takes_labels = True

    def __init__(self, decoder: nn.Module, num_classes: int, embed_dim: int, condition: Condition = "concat") -> None:
        super().__init__()
        self.embedding = LabelEmbedding(num_classes, embed_dim)
        self.decoder = conditioned(decoder, embed_dim, condition)
        self.num_classes, self.condition = num_classes, condition

    @property
    def output_dim(self) -> Any:
        """Shape of what is returned for one latent, where the decoder knows it."""
        return getattr(self.decoder, "output_dim", None)

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return what the decoder returns.

        Args:
            z: Shape (B, latent_dim).
            condition: Integers of shape (B,), or one-hot or soft labels of shape (B, num_classes).

        Raises:
            ValueError: if the labels are missing, out of range or of another shape.
        """
        return self.decoder(z, self.embedding(given(condition)))


DECODERS: dict[str, type[NetworkDecoder]] = {"dense": MLPDecoder, "cnn": CNNDecoder, "resnet": ResNetDecoder}


def create_decoder(
    *,
    config: Mapping[str, Any],
    decoder_type: str,
    conditional: bool = False,
    num_classes: int | None = None,
    embed_dim: int | None = None,
) -> nn.Module:
    """Build a decoder by the name of its kind.

    Args:
        config: Its constructor's arguments by name, `hidden_dims`, `output_dim` and `latent_dim` at least.
        decoder_type: dense, cnn or resnet.
        conditional: Whether it takes labels.
        num_classes: Number of classes, where it is conditional.
        embed_dim: Length of a class's vector, where it is conditional.

    Raises:
        ValueError: an unknown kind or argument, or a number that is missing.
    """
    decoder: nn.Module = create(DECODERS, "decoder_type", decoder_type, config)
    if not conditional:
        return decoder
    return ConditionalDecoder(decoder, *label_sizes(num_classes, embed_dim))
