r"""Modularity: does each code know of one factor only?"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from vaebench.messages import check_range
from vaebench.metrics.base import Estimate, Metric, NotApplicableError, Result, Subject
from vaebench.metrics.histograms import discretize, mutual_information

GROUPS = 10  # for the jackknife
DEAD = 1e-9  # codes with fewer nats of information are dead


def modularities(information: Tensor) -> Tensor:
    """Return the modularity of each code, in [0, 1], 0 for one that knows nothing, from I(z_i; v_f), shape (D, F)."""
    squares = information.square()
    best = squares.max(1).values
    deviation = (squares.sum(1) - best) / (best * (information.shape[1] - 1)).clamp_min(1e-300)
    return torch.where(information.max(1).values > DEAD, 1 - deviation, torch.zeros_like(best))


class Modularity(Metric):
    r"""Modularity (Ridgeway and Mozer, 2018, eqs. 1 and 2): mean over codes of one minus the deviation from one factor.

    .. math:: 1 - \frac{\sum_f m_{if}^2 - \max_f m_{if}^2}{(F - 1) \max_f m_{if}^2}, \quad m_{if} = I(z_i; v_f)

    1 where each code knows of one factor, however many codes share it; 0 where it knows as much of all. Codes that know
    nothing count as 0. Codes are the means of q(z|x), cut into bins of equal width.

    References:
        Learning Deep Disentangled Embeddings with the F-Statistic Loss (Ridgeway and Mozer, 2018),
        https://arxiv.org/abs/1802.05312
    Args:
        num_bins: Bins of each code, >= 2.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"posterior", "factors"})

    def __init__(self, num_bins: int = 20) -> None:
        check_range("num_bins", num_bins, at_least=2, whole=True)
        self.num_bins = num_bins

    def measure(self, subject: Subject) -> Result:
        """Return modularity."""
        codes = subject.codes()
        assert codes.factors is not None
        if codes.factors.shape[1] < 2:
            raise NotApplicableError("with a single factor every code is modular")
        if len(codes) < 2 * GROUPS:
            raise NotApplicableError(f"mutual information needs more examples than {len(codes)}; raise num_examples")
        bins, factors = discretize(codes.z, self.num_bins), codes.factors
        rows = torch.arange(len(codes)) % GROUPS
        every = modularities(mutual_information(bins, factors))
        left_out = [
            modularities(mutual_information(bins[rows != g], factors[rows != g])).mean().item() for g in range(GROUPS)
        ]
        return Result(
            {"modularity": Estimate.jackknife(every.mean().item(), left_out, len(codes), "of 1", "higher")},
            f"histograms of the posterior's means, {self.num_bins} bins of equal width; s.e. by a jackknife over 10 "
            "groups of examples",
            {"num_bins": self.num_bins, "modularity_per_code": every.tolist()},
        )
