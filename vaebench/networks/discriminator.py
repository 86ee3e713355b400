"""A network that tells two distributions apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vaebench.networks.network import Network


class Discriminator(nn.Module):
    """A trunk, and one logit that is linear in its features: log D(x) / (1 - D(x)).

    Args:
        network: Description of the trunk.
        shape: Shape of one example.
    """

    def __init__(self, network: Network, shape: Sequence[int]) -> None:
        super().__init__()
        self.trunk = network.encoder(tuple(shape))
        self.head = nn.Linear(self.trunk.num_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits for x of shape (B, *shape), shape (B,)."""
        return self.logit(self.trunk(x))

    def logit(self, features: Tensor) -> Tensor:
        """Logits for the trunk's features (B, F), shape (B,), in float32 or better."""
        logit = self.head(features).squeeze(-1)
        return logit if logit.dtype == torch.float64 else logit.float()
