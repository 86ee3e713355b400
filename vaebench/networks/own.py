"""Encoders and decoders of a user's own: any module, and what it returns is checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vaebench.networks.network import Encoder

MEANS = ("mean", "mu", "loc")
LOG_VARS = ("log_var", "logvar", "log_variance", "log_covariance")


class OwnEncoder(Encoder):
    """A user's encoder in a model.

    It returns mean and log-variance, each (B, latent_dim), as a pair or by name; they are concatenated here. An encoder
    with an attribute `num_features` returns features (B, num_features) instead, from which the model's own layer makes
    the posterior.

    Attributes:
        takes_labels: Whether the module embeds labels itself, and is given these in the place of a context.

    Args:
        module: Called with x (B, *shape), and with the context where the model has one.
        latent_dim: Number of latent dimensions.
        shape: Shape of one example, for a module that waits for it.
    """

    def __init__(self, module: nn.Module, latent_dim: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        build_for(module, shape)
        self.takes_labels = bool(getattr(module, "takes_labels", False))
        self.module, self.latent_dim = module, latent_dim
        given = getattr(module, "num_features", None)
        self.returns_features = isinstance(given, int)
        self.num_features = given if isinstance(given, int) else 2 * latent_dim

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Features, shape (B, num_features).

        Raises:
            ValueError: if the module returns something else; the sentence says what came.
        """
        output = self.module(x) if context is None else self.module(x, context)
        name = type(self.module).__name__
        if self.returns_features:
            if not isinstance(output, Tensor) or tuple(output.shape) != (len(x), self.num_features):
                expected = f"features of shape ({len(x)}, {self.num_features})"
                raise ValueError(f"encoder: {name} must return {expected}, its num_features; got {_described(output)}")
            return output
        pair = _pair(output)
        shape = (len(x), self.latent_dim)
        if pair is None or any(not isinstance(part, Tensor) or tuple(part.shape) != shape for part in pair):
            raise ValueError(
                f"encoder: {name} must return mean and log-variance, each of shape {shape}, as a pair or as a mapping "
                f"with the keys mean and log_var; got {_described(output)}"
            )
        return torch.cat(pair, dim=1)


class OwnDecoder(nn.Module):
    """A user's decoder in a model.

    Attributes:
        takes_labels: As in `OwnEncoder`.

    Args:
        module: Called with z (B, latent_dim), and with the context where the model has one.
        shape: What it must return for one latent: the shape of the likelihood's parameters.
    """

    def __init__(self, module: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.module, self.shape = module, shape
        self.takes_labels = bool(getattr(module, "takes_labels", False))

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Parameters of the likelihood, shape (B, *shape).

        Raises:
            ValueError: if the module returns something else; the sentence says what came.
        """
        output = self.module(z) if context is None else self.module(z, context)
        if not isinstance(output, Tensor) or tuple(output.shape) != (len(z), *self.shape):
            raise ValueError(
                f"decoder: {type(self.module).__name__} must return the likelihood's parameters, of shape "
                f"{(len(z), *self.shape)}; got {_described(output)}"
            )
        return output


class OwnGridEncoder(Encoder):
    """A user's encoder in a model of codes.

    It returns a grid of vectors, (B, dim, h, w); with an attribute `num_features` that many channels, from which the
    model's own layer makes the vectors. Or it returns one vector (B, n dim) for n codes; of a pair, the mean.

    Attributes:
        size: (h, w), or (n, 1).
        returns_vector: Whether it returns one vector.
        returns_features: Whether it returns features.

    Args:
        module: Called with x (B, *shape), and once here with zeros.
        dim: Length of a code's vector.
        shape: Shape of one example.
    """

    def __init__(self, module: nn.Module, dim: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        build_for(module, shape)
        self.module, self.dim = module, dim
        given = getattr(module, "num_features", None)
        self.returns_features = isinstance(given, int)
        self.num_features = given if isinstance(given, int) else dim
        was_training = module.training
        with torch.no_grad():
            like = next(module.parameters(), torch.empty(0))
            output = self._tensor(module.eval()(like.new_zeros(1, *shape)))
        module.train(was_training)
        self.returns_vector = output.ndim == 2
        self.size: tuple[int, int] = (
            (output.shape[1] // dim, 1) if output.ndim == 2 else (output.shape[2], output.shape[3])
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Grid of vectors or of features, shape (B, num_features, h, w).

        Raises:
            ValueError: if the module returns something else; the sentence says what came.
        """
        output = self._tensor(self.module(x))
        return output.unflatten(1, (-1, self.dim)).mT[..., None] if self.returns_vector else output

    def _tensor(self, output: Any) -> Tensor:
        pair = _pair(output)
        tensor = output if pair is None else pair[0]
        if isinstance(tensor, Tensor):
            is_grid = tensor.ndim == 4 and tensor.shape[1] == self.num_features
            is_vector = tensor.ndim == 2 and tensor.shape[1] % self.dim == 0 and not self.returns_features
            if is_grid or is_vector:
                return tensor
        vector = "" if self.returns_features else f", or a vector (B, n * {self.dim})"
        raise ValueError(
            f"encoder: {type(self.module).__name__} must return a grid (B, {self.num_features}, h, w){vector}; "
            f"got {_described(output)}"
        )


class OwnGridDecoder(OwnDecoder):
    """A user's decoder in a model of codes.

    Args:
        module: Called with the codes' vectors, (B, D, h, w), or (B, n D) where `takes_vector`.
        shape: What it must return for one example.
        takes_vector: Whether the encoder returned one vector.
    """

    def __init__(self, module: nn.Module, shape: tuple[int, ...], takes_vector: bool) -> None:
        super().__init__(module, shape)
        self.takes_vector = takes_vector

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Parameters of the likelihood, shape (B, *shape), for z (B, D, h, w)."""
        return super().forward(z.squeeze(-1).mT.flatten(1) if self.takes_vector else z)


def build_for(encoder: nn.Module, shape: tuple[int, ...]) -> None:
    """Give the shape of one example to an encoder that would take it from the first batch."""
    if getattr(encoder, "input_dim", shape) is None and callable(getattr(encoder, "build", None)):
        encoder.build(shape)  # type: ignore[operator]


@torch.no_grad()
def output_shape(decoder: nn.Module, latent_dim: int) -> tuple[int, ...]:
    """Return the shape of what a decoder returns for one latent: its `output_dim`, or by calling it once.

    Raises:
        ValueError: if it does not take latents of this length, or does not return a tensor.
    """
    if isinstance(known := getattr(decoder, "output_dim", None), tuple):
        return known
    was_training = decoder.training
    like = next(decoder.parameters(), torch.empty(0))
    label = (torch.zeros(1, dtype=torch.long, device=like.device),) if getattr(decoder, "takes_labels", False) else ()
    try:
        output = decoder.eval()(like.new_zeros(1, latent_dim), *label)
    except RuntimeError as error:
        raise ValueError(
            f"decoder: {type(decoder).__name__} cannot take latents of shape (1, {latent_dim}); set latent_dim to what "
            f"it takes ({error})"
        ) from error
    finally:
        decoder.train(was_training)
    if not isinstance(output, Tensor):
        raise ValueError(f"decoder: {type(decoder).__name__} must return a tensor; got {_described(output)}")
    return tuple(output.shape[1:])


def _pair(output: Any) -> tuple[Any, Any] | None:
    if isinstance(output, Mapping):
        found = [next((output[name] for name in names if name in output), None) for names in (MEANS, LOG_VARS)]
        return None if None in [None if part is None else 0 for part in found] else (found[0], found[1])
    if isinstance(output, Tensor):
        return None
    try:
        mean, log_var = output
    except (TypeError, ValueError):
        return None
    return mean, log_var


def _described(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, Mapping):
        return (
            f"a mapping with {', '.join(f'{key} ({_described(value)})' for key, value in output.items()) or 'no keys'}"
        )
    if isinstance(output, (tuple, list)):
        return f"a {type(output).__name__} of {len(output)}: {', '.join(map(_described, output))}"
    return f"a {type(output).__name__}"
