"""Encoders as modules that return a mean and a log-variance, for a model of your own.

A model of this package builds its encoder from a `Network`; these are the same networks, built by hand.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from vaebench.messages import NamedArguments, check_range, did_you_mean
from vaebench.networks.conditioning import Condition
from vaebench.networks.conv import Conv
from vaebench.networks.images import Pool
from vaebench.networks.labels import LabelEmbedding
from vaebench.networks.mlp import MLP
from vaebench.networks.network import Network
from vaebench.networks.own import build_for
from vaebench.networks.resnet import ResNet

Shape = int | Sequence[int]


class GaussianEncoder(NamedArguments, nn.Module):
    """A trunk, and a mean and a log-variance that are linear in its features.

    Args:
        network: Description of the trunk.
        latent_dim: Number of latent dimensions, >= 1.
        input_dim: Shape of one example. None takes it from the first batch: as with torch's lazy modules, call the
            encoder once before its parameters are given to an optimiser.
        context_dim: Entries of the context, 0 for none.
        condition: How the context enters: concat, film or add.
    """

    def __init__(
        self,
        network: Network,
        latent_dim: int,
        input_dim: Shape | None = None,
        context_dim: int = 0,
        condition: Condition = "concat",
    ) -> None:
        super().__init__()
        check_range("latent_dim", latent_dim, at_least=1, whole=True)
        self.network, self.latent_dim = network, latent_dim
        self.context_dim, self.condition = context_dim, condition
        self.input_dim: tuple[int, ...] | None = None
        if input_dim is not None:
            self.build(shape_of(input_dim))

    def build(self, shape: tuple[int, ...]) -> None:
        """Create the layers for examples of `shape`, where none was given to the constructor."""
        self.input_dim = shape
        self.trunk = self.network.encoder(shape, self.context_dim, self.condition)
        self.mean = nn.Linear(self.trunk.num_features, self.latent_dim)
        self.log_var = nn.Linear(self.trunk.num_features, self.latent_dim)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance, each of shape (B, latent_dim).

        Args:
            x: Shape (B, *input_dim).
            context: Shape (B, context_dim), or None where that is 0.

        Raises:
            ValueError: if `x` or the context has another shape.
        """
        if self.input_dim is None:
            self.build(tuple(x.shape[1:]))
            self.to(x.device)
        if tuple(x.shape[1:]) != self.input_dim:
            raise ValueError(
                f"expected x of shape (B, {', '.join(map(str, self.input_dim or ()))}), got {tuple(x.shape)}"
            )
        features = self.trunk(x, context)
        return self.mean(features), self.log_var(features)

    def with_context(self, context_dim: int, condition: Condition = "concat") -> GaussianEncoder:
        """Return a new encoder of the same description that takes a context; no weights are taken over."""
        return GaussianEncoder(self.network, self.latent_dim, self.input_dim, context_dim, condition)


class MLPEncoder(GaussianEncoder):
    """Fully connected layers over the flattened example.

    Args:
        hidden_dims: Widths in the order of the data's flow.
        latent_dim: Number of latent dimensions, >= 1.
        activation: Name of the activation.
        input_dim: Shape of one example; None takes it from the first batch.
    """

    def __init__(
        self, hidden_dims: Sequence[int], latent_dim: int, activation: str = "relu", input_dim: Shape | None = None
    ) -> None:
        super().__init__(MLP(tuple(hidden_dims), activation=activation), latent_dim, input_dim)


class CNNEncoder(GaussianEncoder):
    """Convolutions that each halve the picture.

    Args:
        hidden_dims: Channels in the order of the data's flow.
        latent_dim: Number of latent dimensions, >= 1.
        activation: Name of the activation.
        input_dim: Shape of one picture, (C, H, W); None takes it from the first batch.
        pool: `flatten` keeps where in the picture a feature was seen, `gap` averages over the picture.
    """

    def __init__(
        self,
        hidden_dims: Sequence[int],
        latent_dim: int,
        activation: str = "relu",
        input_dim: Shape | None = None,
        pool: Pool = "flatten",
    ) -> None:
        network = Conv(tuple(hidden_dims), hidden_dim=0, activation=activation, pool=pool)
        super().__init__(network, latent_dim, input_dim)


class ResNetEncoder(GaussianEncoder):
    """Residual blocks, of which one in each level halves the picture.

    Args:
        hidden_dims: Channels of the levels in the order of the data's flow.
        latent_dim: Number of latent dimensions, >= 1.
        activation: Name of the activation.
        input_dim: Shape of one picture, (C, H, W); None takes it from the first batch.
        num_blocks: Residual blocks in each level, >= 1.
        pool: `flatten` keeps where in the picture a feature was seen, `gap` averages over the picture.
    """

    def __init__(
        self,
        hidden_dims: Sequence[int],
        latent_dim: int,
        activation: str = "silu",
        input_dim: Shape | None = None,
        num_blocks: int = 1,
        pool: Pool = "flatten",
    ) -> None:
        network = ResNet(tuple(hidden_dims), num_blocks, hidden_dim=0, activation=activation, pool=pool)
        super().__init__(network, latent_dim, input_dim)


class ConditionalEncoder(NamedArguments, nn.Module):
    """An encoder that is told each example's class.

    The first layer of a finished encoder has no room for a label, so a `GaussianEncoder` is built anew with one. An
    encoder of your own takes the embedded label, shape (B, embed_dim), as its second argument.

    Args:
        encoder: What to condition.
        num_classes: Number of classes.
        embed_dim: Length of the vector that stands for a class.
        condition: How the vector enters a `GaussianEncoder`: concat, film or add.
    """

    takes_labels = True

    def __init__(self, encoder: nn.Module, num_classes: int, embed_dim: int, condition: Condition = "concat") -> None:
        super().__init__()
        self.embedding = LabelEmbedding(num_classes, embed_dim)
        self.encoder = conditioned(encoder, embed_dim, condition)
        self.num_classes, self.condition = num_classes, condition

    @property
    def input_dim(self) -> Any:
        """Shape of one example, where the encoder knows it."""
        return getattr(self.encoder, "input_dim", ())

    def build(self, shape: tuple[int, ...]) -> None:
        """Create the layers of a `GaussianEncoder` that has no `input_dim` yet."""
        build_for(self.encoder, shape)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Any:
        """Return what the encoder returns.

        Args:
            x: Shape (B, *input_dim).
            condition: Integers of shape (B,), or one-hot or soft labels of shape (B, num_classes).

        Raises:
            ValueError: if the labels are missing, out of range or of another shape.
        """
        return self.encoder(x, self.embedding(given(condition)))


ENCODERS: dict[str, type[GaussianEncoder]] = {"dense": MLPEncoder, "cnn": CNNEncoder, "resnet": ResNetEncoder}


def create_encoder(
    *,
    config: Mapping[str, Any],
    encoder_type: str,
    conditional: bool = False,
    num_classes: int | None = None,
    embed_dim: int | None = None,
) -> nn.Module:
    """Build an encoder by the name of its kind.

    Args:
        config: Its constructor's arguments by name, `hidden_dims` and `latent_dim` at least.
        encoder_type: dense, cnn or resnet.
        conditional: Whether it takes labels.
        num_classes: Number of classes, where it is conditional.
        embed_dim: Length of a class's vector, where it is conditional.

    Raises:
        ValueError: an unknown kind or argument, or a number that is missing.
    """
    encoder: nn.Module = create(ENCODERS, "encoder_type", encoder_type, config)
    if not conditional:
        return encoder
    return ConditionalEncoder(encoder, *label_sizes(num_classes, embed_dim))


def create(kinds: Mapping[str, type[nn.Module]], argument: str, kind: str, config: Mapping[str, Any]) -> Any:
    """Construct one of `kinds` from its arguments.

    Raises:
        ValueError: an unknown kind, an unknown argument, or one that is missing; with the nearest name.
    """
    if kind not in kinds:
        raise ValueError(f"{argument}: unknown name '{kind}'{did_you_mean(kind, kinds)}")
    known = inspect.signature(kinds[kind]).parameters
    for name in config:
        if name not in known:
            raise ValueError(f"config: {kinds[kind].__name__} has no argument '{name}'{did_you_mean(name, known)}")
    missing = [name for name, p in known.items() if p.default is p.empty and name not in config]
    if missing:
        raise ValueError(f"config: {kinds[kind].__name__} needs {' and '.join(missing)}")
    return kinds[kind](**config)


def label_sizes(num_classes: int | None, embed_dim: int | None) -> tuple[int, int]:
    """Return both numbers.

    Raises:
        ValueError: if one is missing.
    """
    if num_classes is None or embed_dim is None:
        raise ValueError(
            f"conditional=True needs num_classes and embed_dim, got num_classes={num_classes} and embed_dim={embed_dim}"
        )
    return num_classes, embed_dim


def conditioned(module: nn.Module, embed_dim: int, condition: Condition) -> nn.Module:
    """Return a module that takes a context of `embed_dim` entries as its second argument.

    Raises:
        ValueError: if it takes one argument only.
    """
    with_context: Callable[[int, Condition], nn.Module] | None = getattr(module, "with_context", None)
    if with_context is not None:
        return with_context(embed_dim, condition)
    try:
        inspect.signature(module.forward).bind(None, None)
    except TypeError:
        raise ValueError(
            f"{type(module).__name__}.forward must take the embedded label, shape (B, {embed_dim}), as its second "
            f"argument; it is {type(module).__name__}.forward{inspect.signature(module.forward)}"
        ) from None
    return module


def given(condition: Tensor | None) -> Tensor:
    """Return the labels, shape (B, ...).

    Raises:
        ValueError: if there are none.
    """
    if condition is None:
        raise ValueError("expected labels as `condition`, got none: a conditional network has no unconditional answer")
    return condition


def shape_of(dim: Shape) -> tuple[int, ...]:
    """Return a shape, of a vector where a number is given."""
    return (dim,) if isinstance(dim, int) else tuple(dim)
