"""The manifold sampler: milliseconds per leapfrog step for 50 chains."""

from __future__ import annotations

from collections.abc import Callable

import torch
from bench_measure import Row, Settings, Spread, interleaved, rows
from torch import Tensor

from vaebench.energies.base import BaseEnergyFunction
from vaebench.energies.latent.manifold import ManifoldEnergy
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.mcmc.state import Draw, Parameters
from vaebench.objectives.riemannian_metric import RiemannianMetric, pack

LATENT_DIM, CHAINS, LEAPFROGS = 10, 50, 15
TEMPERATURE, REGULARIZATION = 1.5, 0.01  # the defaults of the model
# Milliseconds per leapfrog step of the best-known implementation, quoted: measured elsewhere, on one core.
QUOTED = {100: 1.8, 1_000: 13.0, 10_000: 490.0}
AIMS = {100: 12, 1_000: 30, 10_000: 100}
SIZES = tuple(QUOTED)


def metric_of(centroids: Tensor, matrices: Tensor) -> RiemannianMetric:
    """The metric with the default temperature and regularisation."""
    return RiemannianMetric(centroids, matrices, TEMPERATURE, REGULARIZATION)


def random_metric(count: int) -> tuple[Tensor, Tensor]:
    """Centroids (N, D) and full matrices M (N, D, D)."""
    factor = 0.1 * torch.randn(count, LATENT_DIM, LATENT_DIM).tril(-1)
    factor = factor + torch.diag_embed((0.3 * torch.randn(count, LATENT_DIM)).exp())
    return torch.randn(count, LATENT_DIM), factor @ factor.mT


class BareEnergy(BaseEnergyFunction):
    """What a careful person writes first: a matrix product for the metric, and autograd for the gradient."""

    def __init__(self, centroids: Tensor, full_matrices: Tensor) -> None:
        super().__init__()
        self.centroids, self.flat = centroids, full_matrices.flatten(1)
        self.eye = REGULARIZATION * torch.eye(LATENT_DIM)

    def forward(self, z: Tensor) -> Tensor:
        weights = (-torch.cdist(z, self.centroids).square() / TEMPERATURE**2).exp()
        inverse = (weights @ self.flat).view(-1, LATENT_DIM, LATENT_DIM) + self.eye
        return -0.5 * torch.linalg.slogdet(inverse).logabsdet


def sampler(settings: Settings) -> list[Row]:
    """HMC on the volume element, ours against autograd, with 100, 1,000 and 10,000 centroids."""
    result = []
    for count in (20, 50) if settings.quick else SIZES:
        centroids, full = random_metric(count)
        ours, bare = ManifoldEnergy(metric_of(centroids, pack(full))), BareEnergy(centroids, full)
        transitions = settings.size({100: 100, 1_000: 20}.get(count, 4), 2)
        start = centroids[torch.randint(count, (CHAINS,))]
        times = interleaved(
            {
                f"autograd, {count:,} centroids": chains(bare, start, transitions),
                f"vaebench, {count:,} centroids": chains(ours, start, transitions),
            },
            settings.repeats,
        )
        note = ""
        if count in QUOTED:
            cpu = Spread.of(times[f"vaebench, {count:,} centroids"].cpu).median
            milliseconds = 1e3 * cpu / (transitions * LEAPFROGS)
            note = (
                f"quoted: {QUOTED[count]:g} ms by the best-known implementation, elsewhere on one core: "
                f"{QUOTED[count] / milliseconds:.0f} x (aim {AIMS[count]} x)"
            )
        result += rows(
            "sampler",
            times,
            against=f"autograd, {count:,} centroids",
            unit="ms per leapfrog",
            value=lambda t, n=transitions: 1e3 * t / (n * LEAPFROGS),
            notes={f"vaebench, {count:,} centroids": note},
        )
    return result


def chains(energy: BaseEnergyFunction, start: Tensor, transitions: int) -> Callable[[], None]:
    """A job: so many transitions of HMC from `start` (S, D)."""
    kernel = HMCKernel(LEAPFROGS, jitter=0)
    parameters = Parameters(torch.tensor(0.03), torch.ones(LATENT_DIM))

    def run() -> None:
        draw = Draw(torch.Generator().manual_seed(0))
        state = kernel.init(start, energy)
        for _ in range(transitions):
            state, _ = kernel.step(state, energy, parameters, draw)

    return run
