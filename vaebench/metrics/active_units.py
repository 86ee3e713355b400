r"""Latent dimensions that the model uses."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from vaebench.messages import counted
from vaebench.metrics.base import Estimate, Metric, NotApplicableError, Result, Subject


def variance_and_error(means_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Return the variance of each column over the rows (N - 1 in the denominator) and its standard error, (D,) each.

    The error is sqrt((m4 - m2^2) / N), the large-sample one for any distribution.
    """
    centred = means_ND.double() - means_ND.double().mean(0)
    m2, m4 = centred.square().mean(0), centred.pow(4).mean(0)
    n = len(means_ND)
    return m2 * n / (n - 1), ((m4 - m2.square()).clamp_min(0) / n).sqrt()


class ActiveUnits(Metric):
    r"""Number of active latent dimensions (Burda et al., 2016).

    .. math:: A_u = Var_x(E_{q(u|x)}[u]) > 0.01      (section 5)

    The standard error of the count comes from the variances': dimension u is truly active with probability
    Phi((A_u - threshold) / s.e.), and dimensions are taken as independent.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519
    Args:
        threshold: Variance above which a dimension counts as active, >= 0.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"posterior"})

    def __init__(self, threshold: float = 0.01) -> None:
        if threshold < 0:
            raise ValueError(f"threshold must not be negative, got {threshold}")
        self.threshold = threshold

    def measure(self, subject: Subject) -> Result:
        """Return active_units; the variances of all dimensions are among the details."""
        means = torch.cat(
            [subject.model.posterior(batch.x, batch.y).mean.flatten(1).double().cpu() for batch in subject.batches()]
        )
        if len(means) < 2:
            raise NotApplicableError("a variance over examples needs at least two of them; raise num_examples")
        if not bool(means.isfinite().all()):
            raise FloatingPointError("the posterior's mean is not finite for some examples")
        variance, error = variance_and_error(means)
        probability = torch.special.ndtr((variance - self.threshold) / error.clamp_min(1e-300))
        count_error = math.sqrt(float((probability * (1 - probability)).sum()))
        count = int((variance > self.threshold).sum())
        unit = f"of {counted(means.shape[1], 'dimension')}"
        return Result(
            {"active_units": Estimate(float(count), count_error, len(means), unit)},
            f"variance over examples of the posterior's mean above {self.threshold:g}",
            {
                "threshold": self.threshold,
                "latent_dim": means.shape[1],
                "variance_per_dimension": variance.tolist(),
                "standard_error_per_dimension": error.tolist(),
            },
        )
