"""How far a network can stretch its input: the largest singular values of its layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FIRST_ITERATIONS = 40  # before training, from random vectors


class SpectralNorms(nn.Module):
    r"""The sum of the spectral norms of some layers' weights, each as a matrix (out, in * kernel), by power iteration.

    .. math:: v \leftarrow W^T u / |W^T u|, \quad u \leftarrow W v / |W v|, \quad s = u^T W v

    The vectors are kept from step to step, and weights of one shape are iterated together. The gradient is that of s at
    fixed vectors, which at the singular vectors is the norm's own.

    References:
        NVAE: A Deep Hierarchical Variational Autoencoder (Vahdat and Kautz, 2020), https://arxiv.org/abs/2007.03898
        (section 3.2); Spectral Norm Regularization for Improving the Generalizability of Deep Learning (Yoshida and
        Miyato, 2017), https://arxiv.org/abs/1705.10941
    Args:
        layers: With a weight (out, in, ...) each.
        num_iterations: Power iterations at each call in training, >= 1.
    """

    def __init__(self, layers: Iterable[Any], num_iterations: int = 4) -> None:
        super().__init__()
        self.num_iterations = num_iterations
        self._layers: dict[tuple[int, int], list[Any]] = {}  # hides the layers from nn.Module
        for layer in layers:
            out, *rest = layer.weight.shape
            self._layers.setdefault((out, torch.Size(rest).numel()), []).append(layer)
        for number, (shape, members) in enumerate(self._layers.items()):
            for name, size in zip("uv", shape, strict=True):
                self.register_buffer(f"{name}{number}", F.normalize(torch.randn(len(members), size), dim=-1))
        self._iterate(FIRST_ITERATIONS)

    def forward(self) -> Tensor:
        """Return the sum of the norms, a scalar; in training the vectors follow the weights."""
        if self.training:
            self._iterate(self.num_iterations)
        return torch.stack([norms.sum() for norms in self.norms()]).sum()

    def norms(self) -> list[Tensor]:
        """Return the norms of the weights of each shape, as the vectors have them, each of shape (N,)."""
        found = []
        for number, weights in enumerate(self._weights()):
            u, v = getattr(self, f"u{number}"), getattr(self, f"v{number}")
            found.append(torch.einsum("no,noi,ni->n", u, weights, v))
        return found

    @torch.no_grad()
    def _iterate(self, num_iterations: int) -> None:
        for number, weights in enumerate(self._weights()):
            u, v = getattr(self, f"u{number}"), getattr(self, f"v{number}")
            for _ in range(num_iterations):
                v.copy_(F.normalize(torch.einsum("noi,no->ni", weights, u), dim=-1))
                u.copy_(F.normalize(torch.einsum("noi,ni->no", weights, v), dim=-1))

    def _weights(self) -> list[Tensor]:
        """Weights by shape, each (N, out, in)."""
        return [
            torch.stack([layer.weight.reshape(shape).float() for layer in layers])
            for shape, layers in self._layers.items()
        ]
