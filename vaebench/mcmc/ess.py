r"""Effective sample size: pure functions of draws (T, S, D), T per chain, S chains.

References:
    Rank-normalization, folding, and localization: an improved R-hat (Vehtari et al., 2021),
    https://arxiv.org/abs/1903.08008
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MIN_DRAWS = 4  # per chain: two halves of two, the fewest with variances within and between


def split_chains(draws: Tensor) -> Tensor:
    """Halve every chain; the middle draw of an odd number is left out. (T, S, D) -> (T // 2, 2 S, D)."""
    half = draws.shape[0] // 2
    return torch.cat([draws[:half], draws[-half:]], 1) if half else draws[:0]


def effective_sample_size(draws: Tensor) -> Tensor:
    r"""S T / tau, with tau from Geyer's initial monotone sequence over autocorrelations pooled across chains.

    Capped at S T log10(S T), for antithetic chains. Constant dimensions have no value: nan.

    Args:
        draws: Shape (T, S, D); not split here.
    """
    num_draws, num_chains = draws.shape[:2]
    if num_draws < MIN_DRAWS:
        return draws.new_full(draws.shape[2:], math.nan)
    total = num_draws * num_chains
    covariance = autocovariance(draws).mean(1)  # (T, D)
    within = covariance[0] * num_draws / (num_draws - 1)
    variance = covariance[0]
    if num_chains > 1:
        variance = variance + draws.mean(0).var(0)
    rho = 1 - (within - covariance) / variance
    rho[0] = 1.0

    # For a reversible chain, sums over lags (0, 1), (2, 3), ... are positive and decreasing; the rest is noise.
    num_pairs = max(1, (num_draws - 1) // 2)
    pairs = rho[: 2 * num_pairs].view(num_pairs, 2, -1).sum(1)  # (pairs, D)
    is_kept = (pairs >= 0).cumprod(0).bool()
    is_kept[0] = True
    sums = torch.where(is_kept, pairs, 0).cummin(0).values
    tau = 2 * torch.where(is_kept, sums, 0).sum(0) - 1
    # The first even lag after the cut still counts once if it is positive, which lowers the bias (ArviZ, Stan).
    cut = is_kept.sum(0).clamp(max=num_pairs - 1)
    even = rho[2 * cut, torch.arange(rho.shape[1])].clamp(min=0)
    tau = tau + torch.where(is_kept.all(0), 0, even)
    ess = total / tau.clamp(min=1 / math.log10(total))
    is_constant = draws.amax((0, 1)) == draws.amin((0, 1))
    return torch.where(is_constant | ~variance.isfinite(), math.nan, ess)


def autocovariance(draws: Tensor) -> Tensor:
    """Autocovariance of each chain at every lag, normalised by T: (T, S, D) -> (T, S, D)."""
    num_draws = draws.shape[0]
    centred = draws - draws.mean(0)
    spectrum = torch.fft.rfft(centred, n=2 * num_draws, dim=0)
    power = torch.fft.irfft(spectrum.abs().square(), n=2 * num_draws, dim=0)
    return power[:num_draws] / num_draws
