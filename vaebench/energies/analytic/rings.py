"""Concentric rings."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vaebench.energies.exact import PlanarEnergy
from vaebench.messages import check_range


class RingsEnergy(PlanarEnergy):
    r"""U(x) = -log sum_k exp(-(|x| - r_k)^2 / (2 s^2)).

    Args:
        radii: r_k, each > 0.
        width: s, > 0.
    """

    def __init__(self, radii: Sequence[float] = (1.0, 2.5, 4.0), width: float = 0.25) -> None:
        super().__init__()
        check_range("width", width, above=0, below=float("inf"))
        for radius in radii:
            check_range("radii", radius, above=0, below=float("inf"))
        if not radii:
            raise ValueError("radii must name at least one ring; got none")
        self.radii = tuple(radii)
        self.width = width
        reach = max(radii) + 9 * width
        self.box = (-reach, reach, -reach, reach)

    def forward(self, x: Tensor) -> Tensor:
        """U in nats, shape (B,)."""
        distance = (x.square().sum(-1, keepdim=True) + 1e-24).sqrt()  # differentiable at 0
        return -(-0.5 * ((distance - x.new_tensor(self.radii)) / self.width).square()).logsumexp(-1)

    def start(self, num_chains: int) -> Tensor:
        """Draw from a square that holds all rings, shape (S, 2)."""
        return max(self.radii) / 2 * super().start(num_chains)
