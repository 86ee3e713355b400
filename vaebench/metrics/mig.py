r"""The mutual information gap."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from vaebench.messages import check_range
from vaebench.metrics.base import Estimate, Metric, NotApplicableError, Result, Subject
from vaebench.metrics.histograms import discretize, entropy, mutual_information

GROUPS = 10  # for the jackknife


def gaps(bins: Tensor, factors: Tensor) -> Tensor:
    """Return (I_1 - I_2) / H of every factor, in [0, 1], NaN for a factor that does not vary; float64, shape (F,).

    I_1 and I_2 are the two largest mutual informations of the factor with one code.
    """
    information = mutual_information(bins, factors)
    if len(information) == 1:
        information = torch.cat([information, torch.zeros_like(information)])
    first, second = information.topk(2, dim=0).values
    return (first - second) / entropy(factors)


class MIG(Metric):
    r"""Mutual information gap: does one code know a factor that the others do not know? (Chen et al., 2018, eq. 6)

    .. math:: \frac{1}{F} \sum_k \frac{I(z_{j^{(k)}}; v_k) - \max_{j \ne j^{(k)}} I(z_j; v_k)}{H(v_k)}, \quad
              j^{(k)} = \arg\max_j I(z_j; v_k)

    1 for a code with one dimension for each factor, near 0 for a code that has nothing to do with them. Codes are the
    means of q(z|x), cut into bins of equal width, as in the large comparison of Locatello et al. (2019); the paper
    itself integrates over q(z|x).

    References:
        Isolating Sources of Disentanglement in Variational Autoencoders (Chen et al., 2018),
        https://arxiv.org/abs/1802.04942;
        Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations
        (Locatello et al., 2019), https://arxiv.org/abs/1811.12359, for 20 bins
    Args:
        num_bins: Bins of each code, >= 2.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"posterior", "factors"})

    def __init__(self, num_bins: int = 20) -> None:
        check_range("num_bins", num_bins, at_least=2, whole=True)
        self.num_bins = num_bins

    def measure(self, subject: Subject) -> Result:
        """Return mig; the gaps of all factors are among the details."""
        codes = subject.codes()
        assert codes.factors is not None
        if len(codes) < 2 * GROUPS:
            raise NotApplicableError(f"mutual information needs more examples than {len(codes)}; raise num_examples")
        bins = discretize(codes.z, self.num_bins)
        every_gap = gaps(bins, codes.factors)
        varies = every_gap.isfinite()
        if not bool(varies.any()):
            raise NotApplicableError("no factor varies among the examples; raise num_examples")
        rows = torch.arange(len(codes))
        left_out = [
            gaps(bins[rows % GROUPS != group], codes.factors[rows % GROUPS != group])[varies].nanmean().item()
            for group in range(GROUPS)
        ]
        value = every_gap[varies].mean().item()
        names = list(getattr(subject.dataset, "factor_names", ())) or [str(k) for k in range(len(every_gap))]
        return Result(
            {"mig": Estimate.jackknife(value, left_out, len(codes), "of 1", "higher")},
            f"histograms of the posterior's means, {self.num_bins} bins of equal width; s.e. by a jackknife over 10 "
            "groups of examples",
            {
                "num_bins": self.num_bins,
                "gap_per_factor": {
                    name: gap if varies[k] else None
                    for k, (name, gap) in enumerate(zip(names, every_gap.tolist(), strict=True))
                },
            },
        )
