r"""Bits per dimension."""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from vaebench.messages import counted
from vaebench.metrics.base import Estimate, Metric, Result, Subject
from vaebench.metrics.bounds import (
    bits_per_dim,
    check_count,
    check_on_grid,
    distortion_and_rate,
    importance_bound,
    why_no_weights,
)


class BitsPerDim(Metric):
    r"""Bits per dimension: what it would cost to code one data dimension with the model (Theis et al., 2016).

    .. math:: -L(x) / (D \ln 2)

    L is the ELBO, or the importance weighted bound where more than one sample is asked for. It has a meaning where
    the likelihood is a probability mass on the grid of the data; a density has none, since it changes with the units.

    References:
        A note on the evaluation of generative models (Theis et al., 2016), https://arxiv.org/abs/1511.01844
    Args:
        num_samples: 1 takes the ELBO; more take the importance weighted bound with that many samples.
        chunk_size: Samples of an example that exist at a time, >= 1; bounds the memory.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"rate"})

    def __init__(self, num_samples: int = 1, chunk_size: int = 50) -> None:
        check_count("num_samples", num_samples)
        check_count("chunk_size", chunk_size)
        self.num_samples = num_samples
        self.chunk_size = chunk_size

    def why_not(self, subject: Subject) -> str | None:
        """Also refuse densities."""
        reason = super().why_not(subject)
        if reason is None and not subject.model.likelihood_head.is_discrete:
            name = type(subject.model.likelihood_head).__name__
            reason = f"{name} is a density, not a probability mass on the grid of the data, so bits have no meaning"
        if reason is None and self.num_samples > 1:
            reason = why_no_weights(subject.model)
        return reason

    def measure(self, subject: Subject) -> Result:
        """Return bits_per_dim from the ELBO, or bits_per_dim_<K> from the importance bound."""
        parts = []
        for batch in subject.batches():
            check_on_grid(subject.model.likelihood_head, batch.x)
            if self.num_samples == 1:
                distortion, rate = distortion_and_rate(subject.model, batch)
                bound = -distortion - rate
            else:
                bound = importance_bound(subject.model, batch, self.num_samples, self.chunk_size).bounds[
                    self.num_samples
                ]
            parts.append(bits_per_dim(bound, math.prod(subject.model.shape)))
        name = "bits_per_dim" if self.num_samples == 1 else f"bits_per_dim_{self.num_samples}"
        source = "the ELBO" if self.num_samples == 1 else f"the importance bound with {self.num_samples} samples"
        levels = subject.model.likelihood_head.num_levels
        return Result(
            {name: Estimate.mean(torch.cat(parts), "bits/dim", "lower")},
            f"from {source}; {counted(math.prod(subject.model.shape), 'dimension')} of {levels} levels",
            {"num_samples": self.num_samples, "num_dims": math.prod(subject.model.shape), "num_levels": levels},
        )
