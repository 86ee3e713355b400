"""Fully connected layers as an energy."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vaebench.energies.learned.network import NetworkEnergy
from vaebench.messages import check_range
from vaebench.networks.mlp import MLP


class MLPEnergy(NetworkEnergy):
    """Fully connected layers, held together by a Gaussian; see `NetworkEnergy`. The weights are drawn from `seed`.

    Args:
        input_dim: Dimensions D of a point, >= 1.
        hidden_dims: Widths of the layers.
        activation: One of elu, gelu, glu, leaky_relu, none, relu, selu, silu, softplus, tanh.
        reference_scale: Standard deviation s of the Gaussian, > 0.
        seed: Of the first weights, >= 0; no other draw is changed by it.
    """

    def __init__(
        self,
        input_dim: int = 2,
        hidden_dims: Sequence[int] = (128, 128),
        activation: str = "silu",
        reference_scale: float = 2.0,
        seed: int = 0,
    ) -> None:
        check_range("input_dim", input_dim, at_least=1, whole=True)
        check_range("seed", seed, at_least=0, whole=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__((input_dim,), MLP(tuple(hidden_dims), activation=activation), reference_scale)
