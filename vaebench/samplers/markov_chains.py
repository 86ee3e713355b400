"""From a number of samples to chains and back, for every sampler that runs chains."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaebench.mcmc.chains import ProgressFunction, run_chains
from vaebench.mcmc.diagnostics import Diagnostics, diagnose
from vaebench.mcmc.kernels.kernel import Kernel


@torch.no_grad()
def sample_chains(
    kernel: Kernel,
    start: Tensor,
    num_samples: int,
    *,
    num_draws: int,
    num_warmup: int,
    thinning: int,
    step_size: float | None,
    target_acceptance: float | None = None,
    progress: ProgressFunction | None = None,
) -> tuple[Tensor, Diagnostics]:
    """Run one chain per row of `start` and keep `num_samples` of their draws.

    Each of S chains keeps `num_draws` draws, or num_samples / S where that is more, so that convergence can be judged
    however few samples are wanted: the diagnostics see all of these draws. The samples are the chains' states at
    equally spaced times, the last one among them, so that they are as nearly independent as the run allows.

    Returns:
        The samples, shape (N, D), and the report.
    """
    num_rounds = math.ceil(num_samples / len(start))
    num_draws = max(num_draws, num_rounds)
    chains = run_chains(
        kernel,
        start,
        num_draws=num_draws,
        num_warmup=num_warmup,
        thinning=thinning,
        step_size=step_size,
        target_acceptance=target_acceptance,
        progress=progress,
    )
    times = [num_draws - 1 - num_draws * i // num_rounds for i in reversed(range(num_rounds))]
    return chains.positions[times].flatten(0, 1)[-num_samples:], diagnose(chains)
