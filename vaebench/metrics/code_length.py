r"""The code length of a discrete model under a learned prior over its codes."""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from vaebench.messages import counted
from vaebench.metrics.base import Estimate, Metric, Result, Subject
from vaebench.metrics.bounds import bits_per_dim, check_on_grid, distortion_and_rate


class CodeLength(Metric):
    r"""Nats and bits per dimension of a model of codes, under the prior that a sampler learned.

    The posterior is all probability on one grid of codes k(x), so that its rate is the grid's code length, and

    .. math:: -\log p(x) = -\log \sum_k p(x|k) p(k) \le -\log p(x|k(x)) - \log p(k(x))

    bounds -log p(x) from above, for every prior p(k). `elbo` has the same with the uniform prior. The prior must have
    been fitted to codes of other examples, such as the training split's.

    References:
        Neural Discrete Representation Learning (van den Oord et al., 2017), https://arxiv.org/abs/1711.00937
        (section 3.3)
    """

    needs: ClassVar[frozenset[str]] = frozenset({"rate", "code_prior"})

    def measure(self, subject: Subject) -> Result:
        """Return code_length_nats and code_elbo_nats, and code_bits_per_dim where the likelihood is discrete."""
        model, prior = subject.model, subject.code_prior
        distortions, uniform_rates, lengths = [], [], []
        for batch in subject.batches():
            check_on_grid(model.likelihood_head, batch.x)
            distortion, uniform = distortion_and_rate(model, batch)
            distortions.append(distortion)
            uniform_rates.append(uniform)
            lengths.append(-prior.log_prob(model.posterior(batch.x, batch.y).sample()).double().cpu())
        distortion, uniform, length = (torch.cat(parts) for parts in (distortions, uniform_rates, lengths))
        values = {
            "code_length_nats": Estimate.mean(length, "nats", "lower"),
            "code_elbo_nats": Estimate.mean(-distortion - length, "nats", "higher"),
        }
        num_dims = math.prod(model.shape)
        if model.likelihood_head.is_discrete:
            bits = bits_per_dim(-distortion - length, num_dims)
            values["code_bits_per_dim"] = Estimate.mean(bits, "bits/dim", "lower")
        how = (
            f"prior of sampler={prior.name}, code length of one grid for each example, {uniform.mean():.2f} nats if "
            f"uniform; distortion {distortion.mean():.2f} nats; a lower bound on log p(x); "
            f"{counted(num_dims, 'dimension')}"
        )
        return Result(values, how, {"sampler": prior.name, "uniform_rate_nats": float(uniform.mean())})
