r"""The Riemannian Hamiltonian variational autoencoder."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from vaebench.core import Batch, Loss, Split, at_least_float32
from vaebench.hardware import collective
from vaebench.messages import check_range
from vaebench.models.base import Components, LatentVariableModel
from vaebench.networks import MLP, Network
from vaebench.objectives.hamiltonian import draw_momentum, generalised_leapfrog, momentum_log_prob, point
from vaebench.objectives.riemannian_metric import RiemannianMetric, pack

log = logging.getLogger(__name__)


class RHVAE(LatentVariableModel):
    r"""RHVAE (Chadebec, Mantoux and Allassonniere, 2020).

    A draw z_0 ~ q(z_0|x) with a momentum rho_0 ~ N(0, G(z_0) / beta_0) flows through K steps of Riemannian Hamiltonian
    dynamics towards the true posterior. The flow is deterministic, its Jacobian known, so the bound is

    .. math:: L = \log p(x, z_K) + \log N(\rho_K; 0, G(z_K)) - \log q(z_0|x) - \log N(\rho_0; 0, G(z_0) / \beta_0)
                  + \log |\det J|

    G is the metric of `RiemannianMetric`, with centroids c_i = mu(x_i) and M_i = L(x_i) L(x_i)^T from a network. Each
    step ends with the quadratic tempering of Caterini et al. (2018): rho <- sqrt(beta_{k-1} / beta_k) rho,
    which carries beta_0 to 1, so that log|det J| = (D / 2) log beta_0.

    A leapfrog step that is too long for the curvature is refused, see `objectives.hamiltonian`; the share of such steps
    is logged as `refused`. Where it is not small, lower `step_size`.

    In training the centroids are those of the batch. After each epoch they are those of the whole training split, or
    `max_centroids` of them, kept in the buffers `centroids` and `matrices`, which every evaluation uses. G^-1 is a sum
    over centroids, so its scale changes with their number, and the flow of an evaluation is not that of training.

    The published step hardly moves: after three epochs on the digits the flow carries a latent over a distance of 0.04
    with a batch's metric and 0.17 with the whole split's, where the standard deviations of q(z_0|x) have a norm of 3.2.

    References:
        Geometry-Aware Hamiltonian Variational Auto-Encoder (Chadebec et al., 2020), https://arxiv.org/abs/2010.11518;
        Data Augmentation in High Dimensional Low Sample Size Setting Using a Geometry-Based Variational Autoencoder
        (Chadebec et al., 2021), https://arxiv.org/abs/2105.00026;
        Hamiltonian Variational Auto-Encoder (Caterini et al., 2018), https://arxiv.org/abs/1805.11328
    Args: those of `LatentVariableModel`, and
        metric_network: Description of the trunk beneath L(x), 400 hidden units as the authors have.
        num_leapfrog: K, >= 1. This default and the next four are those of the authors' library, pythae, for D = 10;
            their experiments of 2021 with D = 2 have step_size=0.01 temperature=0.8 regularization=0.001.
        step_size: epsilon of the leapfrog, > 0.
        beta_zero: First inverse temperature, in (0, 1]; 0.09 is the square of what the authors call beta_zero.
        temperature: T of the metric, > 0.
        regularization: lambda of the metric, > 0.
        max_centroids: Bound on the centroids kept after an epoch, >= 1; the examples nearest to as many k-means centres
            stand for the rest. None keeps all, as the authors do. After two epochs on 5,000 pictures of MNIST, where
            the implicit equations are hardest, a validation batch costs 2 training steps with 500, ours, and 14 with
            2,000.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset({"posterior", "likelihood", "prior", "rate", "manifold"})
    couples_batch: ClassVar[bool] = True
    cautions: ClassVar[Mapping[str, tuple[float, str]]] = MappingProxyType(
        {"refused": (0.05, "this share of the leapfrog steps was too long and moved nothing; lower model.step_size")}
    )
    centroids: Tensor
    matrices: Tensor

    def __init__(
        self,
        shape: Sequence[int] | None = None,
        *,
        metric_network: Network = MLP(hidden_dims=(400,)),  # noqa: B008 - a frozen description
        num_leapfrog: int = 3,
        step_size: float = 0.001,
        beta_zero: float = 0.09,
        temperature: float = 1.5,
        regularization: float = 0.01,
        max_centroids: int | None = 500,
        **components: Unpack[Components],
    ) -> None:
        super().__init__(shape, **components)
        check_range("num_leapfrog", num_leapfrog, at_least=1, whole=True)
        check_range("max_centroids", max_centroids, at_least=1, whole=True, or_null=True)
        check_range("step_size", step_size, above=0, below=math.inf)
        check_range("temperature", temperature, above=0, below=math.inf)
        check_range("regularization", regularization, above=0, below=math.inf)
        check_range("beta_zero", beta_zero, above=0, at_most=1)
        self.num_leapfrog = num_leapfrog
        self.step_size = step_size
        self.beta_zero = beta_zero
        self.temperature = temperature
        self.regularization = regularization
        self.max_centroids = max_centroids
        self.metric_encoder = metric_network.encoder(self.shape)
        self.metric_head = _LowerTriangular(self.metric_encoder.num_features, self.latent_dim)
        self.register_buffer("centroids", torch.empty(0, self.latent_dim))
        self.register_buffer("matrices", torch.empty(0, self.latent_dim * (self.latent_dim + 1) // 2))

    @property
    def metric(self) -> RiemannianMetric:
        """The metric of the whole training split, as of the last epoch's end."""
        return RiemannianMetric(self.centroids, self.matrices, self.temperature, self.regularization)

    @property
    def rate_estimator(self) -> str:
        """The flow's rate has no closed form."""
        return "as what the bound leaves beside the distortion, from the same draw"

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return the negative bound; nats per example."""
        q = self.posterior(batch.x)
        matrices = self._matrices(batch.x)
        metric = RiemannianMetric(
            collective.gather(q.mean), collective.gather(matrices), self.temperature, self.regularization
        )
        distortion, bound, refused = self._bound(batch.x, q, q.rsample(), metric)
        return Loss.mean(-bound, distortion=distortion, rate=-bound - distortion, refused=refused)

    def distortion_and_rate(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return -log p(x|z_K), and minus the bound less that; nats, each of shape (B,)."""
        q = self.posterior(x)
        distortion, bound, _ = self._bound(x, q, q.rsample(), self.metric)
        return distortion, -bound - distortion

    def log_weights(self, x: Tensor, num_samples: int, y: Tensor | None = None) -> Tensor:
        """Return the bound's integrand for draws of (z_0, rho_0): log-weights whose mean weight is p(x); (K, B)."""
        q = self.posterior(x)
        metric = self.metric
        draws = [self._bound(x, q, q.rsample(), metric)[1] for _ in range(num_samples)]
        return torch.stack(draws)

    @torch.no_grad()
    def end_epoch(self, train: Split, batch_size: int) -> None:
        """Take centroids and matrices from the whole training split."""
        means, matrices = [], []
        for rows in torch.arange(len(train)).split(batch_size):
            x = train.batch(rows).x.to(self.centroids.device)
            means.append(self.posterior(x).mean)
            matrices.append(self._matrices(x))
        keep = _representatives(torch.cat(means), self.max_centroids)
        if len(keep) < len(train) and len(self.centroids) == 0:
            log.info(
                "the metric keeps %d of %d examples as centroids; model.max_centroids=null keeps all",
                len(keep), len(train),
            )  # fmt: skip
        self.centroids = torch.cat(means)[keep].to(self.centroids.dtype)
        self.matrices = torch.cat(matrices)[keep].to(self.matrices.dtype)

    def _matrices(self, x: Tensor) -> Tensor:
        """M = L L^T for each example, packed, shape (B, D (D + 1) / 2)."""
        factor = self.metric_head(self.metric_encoder(x))
        with torch.autocast(x.device.type, enabled=False):  # in half precision M may not be positive definite
            return pack(factor @ factor.mT)

    def _bound(self, x: Tensor, q: Any, z: Tensor, metric: RiemannianMetric) -> tuple[Tensor, Tensor, Tensor]:
        """Return -log p(x|z_K), the bound for z_0 = z of shape (B, D), and the share of refused steps; each (B,)."""
        is_training, device = torch.is_grad_enabled(), x.device.type
        is_autocast = torch.is_autocast_enabled(device)

        def potential(z: Tensor) -> tuple[Tensor, Tensor]:
            with torch.enable_grad(), torch.autocast(device, enabled=is_autocast):
                z = z if is_training and z.requires_grad else z.detach().requires_grad_()
                params = at_least_float32(self.decoder(z))
                score = self.likelihood_head.score(params, x)
                (force,) = torch.autograd.grad(params, z, score, create_graph=is_training)
                force = force + self.prior().score(z)
            return -force, params

        noise = collective.standard_normal(tuple(z.shape), like=z)
        bound, refused = -q.log_prob(z), z.new_zeros(len(z))
        with torch.autocast(device, enabled=False):  # half precision cannot solve the implicit equations
            at = point(z, potential, metric)
            rho, momentum_log_density = draw_momentum(at, noise, metric, self.beta_zero)
            bound = bound - momentum_log_density
            for k in range(1, self.num_leapfrog + 1):
                at, rho, is_refused = generalised_leapfrog(at, rho, self.step_size, metric, potential)
                beta_before, beta = self._beta(k - 1), self._beta(k)
                rho = rho * math.sqrt(beta_before / beta)
                bound = bound + 0.5 * self.latent_dim * math.log(beta_before / beta)
                refused = refused + is_refused.to(refused) / self.num_leapfrog
            bound = bound + self.prior().log_prob(at.z) + momentum_log_prob(rho, at, metric)
        log_likelihood = self.likelihood_head(at.value, len(self.shape)).log_prob(x)
        return -log_likelihood, bound + log_likelihood, refused

    def _beta(self, k: int) -> float:
        """Inverse temperature after step k: quadratic from beta_zero at 0 to 1 at K (Caterini et al., 2018)."""
        root = 1 / math.sqrt(self.beta_zero)
        return ((1 - root) * (k / self.num_leapfrog) ** 2 + root) ** -2

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # Only the data determine the number of centroids, so the buffers take the saved size.
        for name in ("centroids", "matrices"):
            saved = state_dict.get(prefix + name)
            current = getattr(self, name)
            if saved is not None and saved.ndim == 2 and saved.shape[1] == current.shape[1]:
                setattr(self, name, current.new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class _LowerTriangular(nn.Module):
    """Features (B, F) -> lower triangular (B, D, D) with a positive diagonal."""

    def __init__(self, num_features: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.diagonal = nn.Linear(num_features, dim)
        self.lower = nn.Linear(num_features, dim * (dim - 1) // 2)

    def forward(self, features: Tensor) -> Tensor:
        diagonal, lower = at_least_float32(self.diagonal(features)), at_least_float32(self.lower(features))
        rows, columns = torch.tril_indices(self.dim, self.dim, -1, device=features.device).unbind()
        factor = torch.diag_embed(diagonal.exp())
        return factor.index_put((torch.arange(len(lower), device=lower.device)[:, None], rows, columns), lower)


def _representatives(points: Tensor, limit: int | None) -> Tensor:
    """Indices of all points (N, D), or of the `limit` that lie nearest to k-means centres."""
    if limit is None or len(points) <= limit:
        return torch.arange(len(points), device=points.device)
    from sklearn.cluster import MiniBatchKMeans

    seeds = min(len(points), max(100, 3 * limit // 2))  # few seeds: as good centres in a third of the time
    kmeans = MiniBatchKMeans(limit, init_size=seeds, max_iter=3, random_state=0, n_init=1, batch_size=4096)
    centres = torch.from_numpy(kmeans.fit(points.cpu().numpy()).cluster_centers_).to(points)
    return torch.cat([torch.cdist(some, points).argmin(-1) for some in centres.split(256)]).unique()
