"""The volume element of a learned Riemannian metric as a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from vaebench.energies.base import Energy
from vaebench.energies.target import Split, Target


class Metric(Protocol):
    """The part of a Riemannian metric that the target reads."""

    centroids: Tensor
    temperature: float

    def log_det_inverse(self, z: Tensor) -> Tensor:
        """log det G^-1(z), (B, D) -> (B,)."""
        ...

    def log_det_inverse_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The same with its gradient, shape (B, D)."""
        ...


@dataclass(frozen=True)
class Manifold(Target):
    r"""The density proportional to sqrt(det G^-1(z)) of a model that learns a metric.

    References:
        Data Augmentation in High Dimensional Low Sample Size Setting Using a Geometry-Based VAE
        (Chadebec et al., 2021), https://arxiv.org/abs/2105.00026
    """

    needs: ClassVar[frozenset[str]] = frozenset({"manifold"})

    def energy(self, model: Any, split: Split | None) -> ManifoldEnergy:
        """Build the energy; the metric already carries what it learned from the data."""
        return ManifoldEnergy(model.metric)


class ManifoldEnergy(Energy):
    r"""U(z) = -1/2 log det G^-1(z), on a ball around the centroids.

    Far from all centroids det G^-1 tends to lambda^D and not to 0, so that the density alone has infinite mass: the
    paper restricts it to a compact set S, which it leaves open. Here S is the ball about the centroids' mean that
    reaches one temperature T, the width of the metric's kernels, beyond the farthest centroid.

    Deviations:
        Outside S the energy rises by (distance / T)^2 / 2 instead of jumping to infinity, so that trajectories turn
        round rather than being rejected. Inside S the density is the paper's.
    Args:
        metric: The learned metric.

    Raises:
        ValueError: if the metric has no centroids yet.
    """

    centre: Tensor
    radius: Tensor

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self.metric = metric
        centroids = metric.centroids
        if not len(centroids):
            raise ValueError("expected a metric with centroids, got none; train the model for at least one epoch first")
        self.width = float(metric.temperature)
        centre = centroids.mean(0)
        self.register_buffer("centre", centre)
        self.register_buffer("radius", (centroids - centre).norm(dim=-1).amax() + self.width)

    def energy(self, x: Tensor) -> Tensor:
        """U in nats, shape (B,)."""
        excess = torch.relu((x - self.centre).norm(dim=-1) - self.radius) / self.width
        return 0.5 * (excess.square() - self.metric.log_det_inverse(x))

    @torch.no_grad()
    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U and its gradient, in closed form."""
        log_det, log_det_grad = self.metric.log_det_inverse_and_grad(x)
        outward = x - self.centre
        distance = outward.norm(dim=-1)
        excess = torch.relu(distance - self.radius) / self.width
        energy = 0.5 * (excess.square() - log_det)
        # at the centre excess is 0 and the direction undefined: radius > 0 keeps the quotient finite
        pull = excess / (self.width * distance.clamp(min=self.width * 1e-6))
        return energy, torch.addcmul(-0.5 * log_det_grad, outward, pull.unsqueeze(-1))

    def start(self, num_chains: int) -> Tensor:
        """Draw centroids, as the paper does, shape (S, D)."""
        centroids = self.metric.centroids
        return centroids[torch.randint(len(centroids), (num_chains,), device=centroids.device)]
