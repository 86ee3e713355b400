r"""The rate, split into mutual information and the distance of the aggregate posterior from the prior."""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from vaebench.metrics.base import Estimate, Metric, NotApplicableError, Result, Subject


class MutualInformation(Metric):
    r"""Mutual information of data and latents, and the marginal KL (Hoffman and Johnson, 2016, eq. 9).

    .. math:: E_x[KL(q(z|x) \| p(z))] = I_q(x; z) + KL(q(z) \| p(z)), \quad q(z) = \frac{1}{N} \sum_n q(z|x_n)

    Both are estimated at one z from each q(z|x_n), with q(z) over all examples: a batch in its place would hold the
    information below the logarithm of its size. It cannot exceed log N here, which is given beside it.

    References:
        ELBO Surgery: Yet Another Way to Carve Up the Variational Evidence Lower Bound (Hoffman and Johnson, 2016),
        http://approximateinference.org/accepted/HoffmanJohnson2016.pdf
    """

    needs: ClassVar[frozenset[str]] = frozenset({"rate"})

    def measure(self, subject: Subject) -> Result:
        """Return mutual_information_nats and marginal_kl_nats."""
        if "groups" in subject.model.capabilities:
            raise NotApplicableError(
                "in a hierarchy q(z|x) of every pair of an example and a draw takes a pass through the networks; the "
                "aggregate posterior is not computed for it"
            )
        posteriors, draws, log_priors, own = [], [], [], []
        for batch in subject.batches():
            q = subject.model.posterior(batch.x, batch.y)
            z = q.sample()
            if z.ndim != 2:
                raise NotApplicableError("the aggregate posterior needs latents that are vectors")
            posteriors.append(q)
            draws.append(z)
            own.append(q.log_prob(z).double().cpu())
            log_priors.append(subject.model.prior(batch.y).log_prob(z).double().cpu())
        n = sum(len(z) for z in draws)
        if n < 2:
            raise NotApplicableError("an aggregate over examples needs at least two of them; raise num_examples")
        aggregate = []
        for z in draws:
            pieces = [q.log_prob(z[:, None].expand(-1, len(q.mean), -1)).double().logsumexp(1) for q in posteriors]
            aggregate.append((torch.stack(pieces).logsumexp(0) - math.log(n)).cpu())
        log_q = torch.cat(aggregate)
        values = {
            "mutual_information_nats": Estimate.mean(torch.cat(own) - log_q, "nats"),
            "marginal_kl_nats": Estimate.mean(log_q - torch.cat(log_priors), "nats", "lower"),
        }
        how = f"one posterior sample per example, q(z) over all {n}; mutual information cannot exceed {math.log(n):.4g}"
        return Result(values, how, {"log_num_examples": math.log(n)})
