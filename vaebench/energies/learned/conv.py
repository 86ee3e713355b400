"""Convolutions as an energy of pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vaebench.energies.learned.network import NetworkEnergy
from vaebench.messages import check_range
from vaebench.networks.conv import Conv


class ConvEnergy(NetworkEnergy):
    """Convolutions, held together by a Gaussian; see `NetworkEnergy`. The weights are drawn from `seed`.

    Args:
        shape: Channels, height and width of a picture; points are pictures, flattened.
        channels: Output channels of the layers, each of which halves the picture.
        hidden_dim: Width of the fully connected layer after them; 0 for none.
        activation: One of elu, gelu, glu, leaky_relu, none, relu, selu, silu, softplus, tanh.
        reference_scale: Standard deviation s of the Gaussian, > 0.
        seed: Of the first weights, >= 0; no other draw is changed by it.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 8, 8),
        channels: Sequence[int] = (32, 64),
        hidden_dim: int = 128,
        activation: str = "silu",
        reference_scale: float = 2.0,
        seed: int = 0,
    ) -> None:
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape must be channels, height and width, each at least 1; got {list(shape)}")
        check_range("seed", seed, at_least=0, whole=True)
        network = Conv(tuple(channels), hidden_dim, activation=activation)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(tuple(shape), network, reference_scale)
