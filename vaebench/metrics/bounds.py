"""Bounds on log p(x) for each example, shared by the metrics that report them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vaebench.core import Batch
from vaebench.metrics.base import NotApplicableError

MOST_NUMBERS = 2**22  # of pictures that are decoded at once: 5,349 of 28x28


@dataclass(frozen=True)
class ImportanceEstimate:
    """Estimates for each example from K importance samples.

    Attributes:
        bounds: For some numbers of samples k the bound from the first k of them, nats, shape (B,) each.
        effective_sample_size: 1 / sum of squared normalised weights of all samples, in [1, K], shape (B,).
    """

    bounds: dict[int, Tensor]
    effective_sample_size: Tensor


def distortion_and_rate(model: Any, batch: Batch, num_samples: int = 1) -> tuple[Tensor, Tensor]:
    """Average -log p(x|z) and the rate over posterior samples; nats, float64, each of shape (B,)."""
    distortion, rates = distortion_and_rates(model, batch, num_samples)
    return distortion, rates[0]


def distortion_and_rates(model: Any, batch: Batch, num_samples: int = 1) -> tuple[Tensor, Tensor]:
    """Average -log p(x|z), the rate, and what each group of a hierarchy adds to it, over posterior samples.

    Returns: nats, float64, shapes (B,) and (1 + G, B): the rate, then the groups', of which there are none without a
        hierarchy.
    """
    distortion, rates = [], []
    for _ in range(num_samples):
        if "groups" in model.capabilities:
            terms, of_groups = model.group_terms(batch.x, batch.y)
            d, r = terms.distortion, torch.cat([terms.rate[None], of_groups.mT])
        else:
            d, rate = model.distortion_and_rate(batch.x, batch.y)
            r = rate[None]
        distortion.append(d.double().cpu())
        rates.append(r.double().cpu())
    return torch.stack(distortion).mean(0), torch.stack(rates).mean(0)


def importance_bound(
    model: Any, batch: Batch, num_samples: int, chunk_size: int, sums_labels: bool = False
) -> ImportanceEstimate:
    r"""Estimate the importance weighted bound of each example.

    .. math:: L_K(x) = \log \frac{1}{K} \sum_{k=1}^K w_k, \quad w_k = p(x, z_k) / q(z_k|x)

    The mean is taken inside the logarithm, for each example. At most `chunk_size` samples of an example exist at a
    time, fewer where examples or latents are large; what stays of them is a running log-sum of the weights and one of
    their squares.

    Args:
        model: Gives `log_weights(x, num_samples, y)`, nats, shape (num_samples, B).
        batch: B examples.
        num_samples: K, >= 1.
        chunk_size: Samples at a time, >= 1.
        sums_labels: Whether to take `log_weights_without_labels(x, num_samples)`, whose mean weight is p(x).
    """
    chunk_size = max(1, min(chunk_size, latents_at_once(model) // len(batch)))
    log_sum = torch.full((len(batch),), -math.inf, dtype=torch.float64)
    log_sum_of_squares = log_sum.clone()
    bounds: dict[int, Tensor] = {}
    done = 0
    while done < num_samples:
        size = min(chunk_size, num_samples - done)
        if sums_labels:
            log_w_KB = model.log_weights_without_labels(batch.x, size).double().cpu()
        else:
            log_w_KB = model.log_weights(batch.x, size, batch.y).double().cpu()
        first = 0
        for k in [k for k in ladder(num_samples) if done < k <= done + size] + [done + size]:
            log_sum = torch.logaddexp(log_sum, log_w_KB[first : k - done].logsumexp(0))
            bounds[k] = log_sum - math.log(k)
            first = k - done
        log_sum_of_squares = torch.logaddexp(log_sum_of_squares, (2 * log_w_KB).logsumexp(0))
        done += size
    kept = {k: bounds[k] for k in ladder(num_samples)}
    return ImportanceEstimate(kept, (2 * log_sum - log_sum_of_squares).exp())


def latents_at_once(model: Any) -> int:
    """How many latents of a model are decoded at once, so that memory suffices."""
    numbers = max(math.prod(model.shape), math.prod(model.latent_shape) // 4)
    return max(1, MOST_NUMBERS // numbers)


def bits_per_dim(log_prob: Tensor, num_dims: int) -> Tensor:
    """Return -log_prob / (num_dims ln 2), bits; log_prob in nats, any shape."""
    return -log_prob / (num_dims * math.log(2))


def why_no_weights(model: Any) -> str | None:
    """Say why importance weights have no meaning: log p(x|z) is itself drawn from a bound; None where they have."""
    head = getattr(model, "likelihood_head", None)
    if head is None or head.log_prob_is != "a bound":
        return None
    name = type(head).__name__
    return f"log p(x|z) of {name} is itself estimated by a bound, whose exponential is not an importance weight"


def ladder(num_samples: int) -> list[int]:
    """The numbers of samples at which a bound is reported: 1, 10, 100, ... and K itself."""
    rungs = []
    k = 1
    while k < num_samples:
        rungs.append(k)
        k *= 10
    return [*rungs, num_samples]


def check_count(name: str, value: int) -> None:
    """Refuse a number below 1.

    Raises:
        ValueError: naming the key.
    """
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def check_on_grid(likelihood: Any, x: Tensor) -> None:
    """Refuse data to which the likelihood gives no probability mass.

    Raises:
        NotApplicableError: the likelihood is discrete and a value lies between its levels.
    """
    levels = likelihood.num_levels
    if not likelihood.is_discrete or levels is None:
        return
    position = x.double() * (levels - 1)
    tolerance = 1e-3 + (levels - 1) * torch.finfo(x.dtype).eps  # rounding of k / (levels - 1)
    if not bool(((position - position.round()).abs() < tolerance).all() and (x >= 0).all() and (x <= 1).all()):
        raise NotApplicableError(
            f"the data are not on the grid of {levels} levels in [0, 1] of {type(likelihood).__name__}, which "
            "gives them no probability; train with a likelihood that suits them (model/likelihood=auto)"
        )
