r"""How much of its codes a model uses."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from vaebench.messages import counted
from vaebench.metrics.base import Estimate, Metric, Result, Subject

GROUPS = 20  # for the jackknife


class Codebook(Metric):
    r"""Perplexity and usage of the codebook, over all examples.

    .. math:: \exp\Big(-\sum_k p_k \log p_k\Big), \qquad \frac1K |\{k : p_k > 0\}|

    with p_k the share of all positions of all examples that have the code k. The perplexity is K where all codes are
    used alike; over one batch it could not exceed the number of vectors in the batch. Where a position has several
    codes, each codebook has numbers of its own.

    References:
        Neural Discrete Representation Learning (van den Oord et al., 2017), https://arxiv.org/abs/1711.00937
    """

    needs: ClassVar[frozenset[str]] = frozenset({"codes", "posterior"})

    def measure(self, subject: Subject) -> Result:
        """Return codebook_perplexity and codebook_usage; of several codebooks, each with its number."""
        model = subject.model
        depth, num_codes = model.quantizer.depth, model.quantizer.num_codes
        groups = torch.zeros(GROUPS, depth, num_codes, dtype=torch.float64)
        done = 0
        for batch in subject.batches():
            codes = model.posterior(batch.x, batch.y).codes.reshape(len(batch), depth, -1).cpu()
            group = (done + torch.arange(len(batch))) * GROUPS // len(subject.split)
            place = (group[:, None, None] * depth + torch.arange(depth)[:, None]) * num_codes + codes
            groups.view(-1).index_add_(0, place.flatten(), torch.ones(place.numel(), dtype=torch.float64))
            done += len(batch)
        filled = groups[groups.flatten(1).sum(1) > 0]
        values = {}
        for book in range(depth):
            counts = filled[:, book]
            others = [counts.sum(0) - one for one in counts] if len(counts) > 1 else []
            number = f"_{book + 1}" if depth > 1 else ""
            for name, statistic, unit in (
                ("perplexity", _perplexity, f"of {num_codes} codes"),
                ("usage", _usage, "share of codes"),
            ):
                left_out = [statistic(other) for other in others]
                values[f"codebook_{name}{number}"] = Estimate.jackknife(
                    statistic(counts.sum(0)), left_out, done, unit, "higher"
                )
        num_vectors = int(filled[:, 0].sum())
        how = f"{counted(num_vectors, 'vector')} of {counted(done, 'example')}; s.e. by a jackknife over groups of them"
        return Result(values, how, {"num_codes": num_codes, "num_codebooks": depth, "num_vectors": num_vectors})


def _perplexity(counts: Tensor) -> float:
    p = counts / counts.sum()
    return float(torch.exp(-torch.special.xlogy(p, p).sum()))


def _usage(counts: Tensor) -> float:
    return float((counts > 0).double().mean())
