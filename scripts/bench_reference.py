"""The best-known implementation, pythae, beside ours in one process, where it is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from bench_measure import Row, Settings, interleaved, rows
from bench_sampler import CHAINS, LATENT_DIM, LEAPFROGS, SIZES, chains, metric_of, random_metric
from bench_training import BATCH_SIZE, LEARNING_RATE, SHAPE, binary_images, new_rhvae, new_vae, trainer
from torch import Tensor

from vaebench.energies.latent.manifold import ManifoldEnergy
from vaebench.objectives.riemannian_metric import pack

TRANSITIONS = {100: 100, 1_000: 10}


def is_installed() -> bool:
    """Whether there is something to compare with."""
    return importlib.util.find_spec("pythae") is not None


def reference(settings: Settings) -> list[Row]:
    """Its `VAE`, `RHVAE` and manifold sampler with their default networks and settings, which are also ours."""
    return [*_training(settings), *_sampler(settings)] if is_installed() else []


def _training(settings: Settings) -> list[Row]:
    from pythae import models

    data = binary_images(settings.size(10_000, 200), 100)
    result = []
    for name, (ours, num_epochs) in {"VAE": (new_vae, settings.size(3, 1)), "RHVAE": (new_rhvae, 1)}.items():
        config = getattr(models, f"{name}Config")(input_dim=SHAPE, latent_dim=LATENT_DIM, reconstruction_loss="bce")
        theirs = getattr(models, name)(config)
        num_examples = num_epochs * len(data.train)
        jobs = {
            f"pythae {name}": _loop(theirs, data.train.x, num_epochs),
            f"vaebench {name}": trainer(ours("mlp"), data, num_epochs, with_run=True, validate_every=None),
        }
        result += rows(
            "reference",
            interleaved(jobs, max(1, settings.repeats // 2)),
            against=f"pythae {name}",
            unit="examples/s",
            value=lambda t, n=num_examples: n / t,
            notes={f"vaebench {name}": "all default callbacks; theirs is its model alone, in a bare loop"},
        )
    return result


def _loop(model: Any, x: Tensor, num_epochs: int) -> Callable[[], None]:
    """Epochs in the fastest form that its API has: no loader, no callbacks, a fused optimiser."""
    optimiser = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=LEARNING_RATE, fused=True)

    def run() -> None:
        model.train()
        for _ in range(num_epochs):
            for rows_ in torch.randperm(len(x)).split(BATCH_SIZE):
                loss = model({"data": x.index_select(0, rows_)}).loss
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
            model.update()

    return run


def _sampler(settings: Settings) -> list[Row]:
    from pythae.models import RHVAE, RHVAEConfig
    from pythae.samplers import RHVAESampler, RHVAESamplerConfig

    result = []
    for count in (20, 50) if settings.quick else SIZES:
        centroids, full = random_metric(count)
        model = RHVAE(RHVAEConfig(input_dim=SHAPE, latent_dim=LATENT_DIM))
        model.centroids.append(centroids)
        model.M.append(full)
        model.update()
        transitions = settings.size(TRANSITIONS.get(count, 1), 1)
        sampler = RHVAESampler(model, RHVAESamplerConfig(mcmc_steps_nbr=transitions, n_lf=LEAPFROGS))
        start = centroids[torch.randint(count, (CHAINS,))]
        ours = ManifoldEnergy(metric_of(centroids, pack(full)))
        times = interleaved(
            {
                f"pythae, {count:,} centroids": lambda s=sampler: s.hmc_sampling(CHAINS),
                f"vaebench, {count:,} centroids": chains(ours, start, transitions),
            },
            max(1, settings.repeats // 2) if count > 1_000 else settings.repeats,
        )
        result += rows(
            "reference",
            times,
            against=f"pythae, {count:,} centroids",
            unit="ms per leapfrog",
            value=lambda t, n=transitions: 1e3 * t / (n * LEAPFROGS),
        )
    return result
