r"""The evidence lower bound, split into distortion and rate."""

from __future__ import annotations

from typing import ClassVar

import torch

from vaebench.metrics.base import Estimate, Metric, Result, Subject
from vaebench.metrics.bounds import check_count, check_on_grid, distortion_and_rates


class ELBO(Metric):
    r"""ELBO, distortion and rate in nats (Kingma and Welling, 2014), at beta = 1.

    .. math:: ELBO(x) = -D - R, \quad D = -E_{q(z|x)}[\log p(x|z)], \quad R = KL(q(z|x) \| p(z))      (eq. 3)

    Sums over data and latent dimensions, then the mean over examples. D is averaged over posterior samples; R is the
    model's: in closed form where there is one.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114;
        Fixing a Broken ELBO (Alemi et al., 2018), https://arxiv.org/abs/1711.00464, for distortion and rate
    Args:
        num_samples: Posterior samples for each example, >= 1.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"rate"})

    def __init__(self, num_samples: int = 1) -> None:
        check_count("num_samples", num_samples)
        self.num_samples = num_samples

    def measure(self, subject: Subject) -> Result:
        """Return elbo_nats, distortion_nats, rate_nats, and of a hierarchy rate_group_<l>_nats, the top group first."""
        parts = []
        caution: str | None = None
        for batch in subject.batches():
            check_on_grid(subject.model.likelihood_head, batch.x)
            caution = caution or subject.model.likelihood_head.caution(batch.x)
            distortion, rates = distortion_and_rates(subject.model, batch, self.num_samples)
            parts.append(torch.cat([distortion[None], rates]))
        distortion, rate, *of_groups = torch.cat(parts, dim=1)
        width = len(str(len(of_groups) - 1))
        samples = f"{self.num_samples} posterior sample{'s' * (self.num_samples > 1)} per example"
        return Result(
            {
                "elbo_nats": Estimate.mean(-distortion - rate, "nats", "higher"),
                "distortion_nats": Estimate.mean(distortion, "nats", "lower"),
                "rate_nats": Estimate.mean(rate, "nats"),
                **{f"rate_group_{i:0{width}d}_nats": Estimate.mean(own, "nats") for i, own in enumerate(of_groups)},
            },
            f"{samples}; rate {subject.model.rate_estimator}" + (f"; {caution}" if caution else ""),
            {"num_samples": self.num_samples, "rate_estimator": subject.model.rate_estimator},
        )
