"""The volume element of a learned Riemannian metric as a target."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from vaebench.energies.base import BaseEnergyFunction
from vaebench.energies.target import Split, Target

# Smaller exponents are taken as -inf: they add 1e-26 of an M_i, and denormal weights slow the products down.
NEGLIGIBLE = -60.0
SMALLEST = -80.0  # larger exponents have normal float32 weights, with a margin
# With fewer entries above the diagonals of all M_i, full matrices are faster than packed triangles.
WHOLE = 7_000


class MetricTensor(Protocol):
    """The part of a Riemannian metric G^-1(z) = sum_i M_i exp(-|c_i - z|^2 / T^2) + lambda I that the target reads."""

    centroids: Tensor
    """c_i, shape (N, D)."""
    matrices: Tensor
    """M_i as lower triangles, row by row, shape (N, D (D + 1) / 2)."""
    temperature: float
    """T."""
    regularization: float
    """lambda."""

    def log_det_inverse(self, z: Tensor) -> Tensor:
        """log det G^-1(z), (B, D) -> (B,)."""
        ...

    def inverse(self, z: Tensor) -> Tensor:
        """G^-1(z), (B, D) -> (B, D, D)."""
        ...


@dataclass(frozen=True)
class ManifoldTarget(Target):
    r"""The density proportional to sqrt(det G^-1(z)) of a model that learns a metric.

    References:
        Data Augmentation in High Dimensional Low Sample Size Setting Using a Geometry-Based VAE
        (Chadebec et al., 2021), https://arxiv.org/abs/2105.00026
    """

    needs: ClassVar[frozenset[str]] = frozenset({"manifold"})

    def build(self, model: Any = None, split: Split | None = None) -> ManifoldEnergy:
        """Build the energy; the metric already carries what it learned from the data."""
        return ManifoldEnergy(self.require(model).metric)


class ManifoldEnergy(BaseEnergyFunction):
    r"""U(z) = -1/2 log det G^-1(z), on a ball that holds the centroids.

    Far from all centroids det G^-1 tends to lambda^D and not to 0, so that the density alone has infinite mass: the
    paper restricts it to a compact set S, which it leaves open. Here S is the ball about the origin that reaches one
    temperature T, the width of the metric's kernels, beyond the farthest centroid.

    The gradient is in closed form,

    .. math:: \nabla U(z) = T^{-2} \sum_i w_i \, tr(G M_i) \, (z - c_i), \quad w_i = \exp(-\|c_i - z\|^2 / T^2)

    in three matrix products over the centroids. Because a trained metric stands still, everything that does not depend
    on z is computed once.

    Deviations:
        Outside S the energy rises by (distance / T)^2 / 2 instead of jumping to infinity, so that trajectories turn
        round rather than being rejected. Inside S the density is the paper's.
    Args:
        metric: The learned metric.

    Raises:
        ValueError: if the metric has no centroids yet.
    """

    def __init__(self, metric: MetricTensor) -> None:
        super().__init__()
        centroids = metric.centroids.detach()
        if not len(centroids):
            raise ValueError("expected a metric with centroids, got none; train the model for at least one epoch first")
        self.metric = metric
        squared_width = metric.temperature**2
        self.steepness = 1 / squared_width
        self.radius = float(centroids.norm(dim=-1).amax()) + metric.temperature

        num_dims = centroids.shape[-1]
        rows, columns = torch.tril_indices(num_dims, num_dims, device=centroids.device).unbind()
        place = torch.empty(num_dims, num_dims, dtype=torch.long, device=centroids.device)
        place[rows, columns] = place[columns, rows] = torch.arange(len(rows), device=centroids.device)
        matrices, is_diagonal = metric.matrices.detach(), rows == columns
        self._is_packed = len(centroids) * num_dims * (num_dims - 1) // 2 > WHOLE
        # For many centroids, layouts avoid products with few columns, which are far slower. For few centroids, what
        # counts is the order in which the next operation reads the result.
        floor = metric.regularization * is_diagonal.to(centroids)
        if self._is_packed:
            self._unpack, self._pack = place.flatten(), rows * num_dims + columns
            counts = 2 - is_diagonal.to(centroids)  # entries below the diagonal count twice
            self._matrices, self._floor = matrices.mT.contiguous(), floor.unsqueeze(-1)
        else:
            matrices, floor = matrices[:, place.flatten()], floor[place.flatten()]
            counts = torch.ones_like(floor)
            self._matrices, self._floor = matrices, floor
        column = torch.ones_like(centroids[:, :1])
        self._exponent = (torch.cat([2 * centroids, -column], -1) / squared_width).mT.contiguous()
        self._offset = centroids.square().sum(-1) / -squared_width
        self._traces = (matrices * counts).mT.contiguous()
        self._pull = (torch.cat([-centroids, column], -1) / squared_width).mT.contiguous()
        self._eye = torch.empty(0)  # resized to the number of chains
        self._reaches_far = (2 * self.radius) ** 2 / squared_width > -SMALLEST
        self._wall = torch.zeros_like(self._pull[:, :1])
        self._wall[-1] = self.steepness

    def forward(self, x: Tensor) -> Tensor:
        """U in nats, shape (B,)."""
        excess = torch.relu(x.norm(dim=-1) - self.radius)
        return 0.5 * self.steepness * excess.square() - 0.5 * self.metric.log_det_inverse(x)

    def inverse_metric(self, x: Tensor) -> Tensor:
        """G^-1, the model's own metric, for kernels that move along it: (B, D) -> (B, D, D)."""
        return self.metric.inverse(x)

    def gradient(self, x: Tensor) -> Tensor:
        """Gradient of U alone, shape (B, D), without the operations that only the value needs."""
        return self._differentiate(x)[0]

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U and its gradient, in closed form."""
        gradient, factor, inverse_reach = self._differentiate(x)
        half_log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
        excess = inverse_reach.reciprocal() - self.radius
        return torch.addcmul(-half_log_det, excess, excess, value=0.5 * self.steepness).squeeze(-1), gradient

    def _differentiate(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient of U, and on the way the factor of G^-1, and 1 / max(|x|, radius), shape (B, 1)."""
        x, num_dims = x.detach(), x.shape[-1]
        squared = x.square().sum(-1, keepdim=True)
        weights = torch.addmm(self._offset, torch.cat((x, squared), -1), self._exponent)
        weights = (torch.threshold_(weights, NEGLIGIBLE, -math.inf) if self._reaches_far else weights).exp_()
        if self._is_packed:
            inverse = torch.addmm(self._floor, self._matrices, weights.mT).mT.index_select(-1, self._unpack)
        else:
            inverse = torch.addmm(self._floor, weights, self._matrices)
        # Column-major, as LAPACK wants it. A failure leaves nan, which the kernel rejects.
        factor, _ = torch.linalg.cholesky_ex(inverse.view(-1, num_dims, num_dims).mT, upper=True)
        if self._eye.shape != factor.shape:
            self._eye = torch.eye(num_dims).to(x).repeat(len(x), 1, 1).mT
        # Faster than cholesky_inverse.
        root = torch.linalg.solve_triangular(factor, self._eye, upper=True, left=False)
        metric = torch.bmm(root, root.mT).view(-1, num_dims * num_dims)
        metric = metric.index_select(-1, self._pack) if self._is_packed else metric
        shares = torch.mm(metric, self._traces).mul_(weights)
        pull, total = torch.addmm(self._wall, self._pull, shares.mT).mT.split((num_dims, 1), -1)
        # The wall's slope is (1 - radius / |x|) x / T^2. The 1 is in the product above; inside the radius both cancel.
        inverse_reach = squared.clamp_min_(self.radius**2).rsqrt_()
        slope = torch.add(total, inverse_reach, alpha=-self.radius * self.steepness)
        return torch.addcmul(pull, x, slope), factor, inverse_reach

    def start(self, num_chains: int) -> Tensor:
        """Draw centroids, as the paper does, shape (S, D)."""
        centroids = self.metric.centroids
        return centroids[torch.randint(len(centroids), (num_chains,), device=centroids.device)]
