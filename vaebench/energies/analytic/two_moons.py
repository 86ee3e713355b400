"""Two moons."""

from __future__ import annotations

import torch
from torch import Tensor

from vaebench.energies.exact import PlanarEnergy


class TwoMoonsEnergy(PlanarEnergy):
    r"""U(x) = ((|x| - 2) / 0.4)^2 / 2 - log(exp(-((x_1 - 2) / 0.6)^2 / 2) + exp(-((x_1 + 2) / 0.6)^2 / 2)).

    References:
        Variational Inference with Normalizing Flows (Rezende & Mohamed, 2015), https://arxiv.org/abs/1505.05770, the
        first of its test energies.
    """

    box = (-5.0, 5.0, -5.0, 5.0)

    def forward(self, x: Tensor) -> Tensor:
        """U in nats, shape (B,)."""
        distance = (x.square().sum(-1) + 1e-24).sqrt()  # differentiable at 0
        sides = torch.stack([-0.5 * ((x[:, 0] - c) / 0.6).square() for c in (2.0, -2.0)], -1)
        return 0.5 * ((distance - 2) / 0.4).square() - sides.logsumexp(-1)
