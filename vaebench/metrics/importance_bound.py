r"""The importance weighted bound on log p(x)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from vaebench.messages import counted
from vaebench.metrics.base import Estimate, Metric, Result, Subject
from vaebench.metrics.bounds import check_count, check_on_grid, importance_bound, ladder, why_no_weights

ROUNDING = 1e-6  # nats; smaller differences of bounds are none
FEW = 10  # with fewer effective samples, log p(x) may lie far above the bound


class ImportanceBound(Metric):
    r"""Importance weighted bound in nats (Burda et al., 2016): log p(x) is above it, and is its limit for many samples.

    .. math:: L_K(x) = E_{z_1..z_K \sim q(z|x)}\left[\log \frac{1}{K} \sum_k \frac{p(x, z_k)}{q(z_k|x)}\right]  (eq. 8)

    The bounds for 1, 10, 100, ... samples come from the first of the same samples and show how far it has converged;
    so does the effective sample size 1 / sum of squared normalised weights. Memory does not grow with K.

    Of a model that is told the label these are bounds on log p(x|y). Where it knows how often each class occurs there
    is also one on log p(x), the label summed out, which compares with models without labels.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519
    Args:
        num_samples: K, importance samples for each example, >= 1. Published tables use 5000.
        chunk_size: Samples of an example that exist at a time, >= 1; bounds the memory.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"rate"})

    def __init__(self, num_samples: int = 500, chunk_size: int = 50) -> None:
        check_count("num_samples", num_samples)
        check_count("chunk_size", chunk_size)
        self.num_samples = num_samples
        self.chunk_size = chunk_size

    def why_not(self, subject: Subject) -> str | None:
        """Also refuse likelihoods that are bounds themselves."""
        return super().why_not(subject) or why_no_weights(subject.model)

    def measure(self, subject: Subject) -> Result:
        """Return importance_bound_<k>_nats for each k, importance_ess_<K>, and importance_bound_<K>_any_label_nats."""
        bounds, sizes, without_labels = [], [], []
        sums_labels = _knows_classes(subject.model)
        for batch in subject.batches():
            check_on_grid(subject.model.likelihood_head, batch.x)
            found = importance_bound(subject.model, batch, self.num_samples, self.chunk_size)
            bounds.append(torch.stack(list(found.bounds.values())))
            sizes.append(found.effective_sample_size)
            if sums_labels:
                size = max(1, self.chunk_size // subject.model.num_classes)
                summed = importance_bound(subject.model, batch, self.num_samples, size, sums_labels=True)
                without_labels.append(summed.bounds[self.num_samples])
        bounds_KN = torch.cat(bounds, dim=1)
        values = {
            f"importance_bound_{k}_nats": Estimate.mean(bound, "nats", "higher")
            for k, bound in zip(ladder(self.num_samples), bounds_KN, strict=True)
        }
        values[f"importance_ess_{self.num_samples}"] = Estimate.mean(
            torch.cat(sizes), f"of {counted(self.num_samples, 'sample')}", "higher"
        )
        if sums_labels:
            name = f"importance_bound_{self.num_samples}_any_label_nats"
            values[name] = Estimate.mean(torch.cat(without_labels), "nats", "higher")
        weights = counted(self.num_samples, "importance weight")
        how = f"log of the mean of {weights} per example; a lower bound in expectation"
        if len(bounds_KN) > 1:
            gain = (bounds_KN[-1] - bounds_KN[-2]).mean().item()
            gain = 0.0 if abs(gain) < ROUNDING else gain
            how += f"; {gain:.2g} nats above that of {counted(ladder(self.num_samples)[-2], 'sample')}"
        sizes_N = torch.cat(sizes)
        num_few = int((sizes_N < FEW).sum())
        if self.num_samples > FEW and num_few:
            how += (
                f"; for {num_few} of {counted(len(sizes_N), 'example')} fewer than {FEW} samples carry the weight "
                "(effective sample size), so that log p(x) may lie far above the bound, and q(z|x) is a poor fit to "
                "p(z|x): raise num_samples until the bound stays"
            )
        if sums_labels:
            how += "; of log p(x|y), and with any_label of log p(x), classes weighted as often as training saw them"
        return Result(values, how, {"num_samples": self.num_samples, "chunk_size": self.chunk_size})


def _knows_classes(model: Any) -> bool:
    """Whether the model is told labels, and saw in training how often each occurs."""
    frequencies = getattr(model, "label_frequencies", None)
    return hasattr(model, "log_weights_without_labels") and frequencies is not None and bool(frequencies.sum() > 0)
