r"""The beta-VAE with a controlled capacity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import Unpack

from vaebench.core import Batch, Loss
from vaebench.hardware import collective
from vaebench.messages import check_range
from vaebench.models.aliases import also_takes, capacity_of
from vaebench.models.base import Components, LatentVariableModel
from vaebench.schedules import LinearScheduler


class BetaVAEWithCapacity(LatentVariableModel):
    r"""AnnealedVAE (Burgess et al., 2018).

    The rate is held at a capacity that grows, so that the latent dimensions are filled one after the other:

    .. math:: L = -E_{q(z|x)}[\log p(x|z)] + \gamma \, |\bar R - C(t)|, \quad C(t) = C_{max} \min(1, t / T)      (eq. 8)

    with R the mean rate of the batch, taken before the absolute value as in the study by Locatello et al. (2019): the
    mean of absolute values would also penalise differences in rate between examples. There is no beta. Validation
    reports the ELBO.

    References:
        Understanding disentangling in beta-VAE (Burgess et al., 2018), https://arxiv.org/abs/1804.03599;
        Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations (Locatello et al.,
        2019), https://arxiv.org/abs/1811.12359
    Args: those of `LatentVariableModel`, and
        gamma: >= 0; 1000 as in the paper.
        capacity_max: C_max in nats, >= 0; 25 as in the paper's experiment with 2D shapes.
        capacity_num_iter: T in optimiser steps, >= 0; 100,000 as in the paper.
    """

    couples_batch: ClassVar[bool] = True

    @also_takes(capacity_of)
    def __init__(
        self,
        shape: Sequence[int] | None = None,
        *,
        gamma: float = 1000.0,
        capacity_max: float = 25.0,
        capacity_num_iter: int = 100_000,
        **components: Unpack[Components],
    ) -> None:
        super().__init__(shape, **components)
        check_range("gamma", gamma, at_least=0, below=math.inf)
        check_range("capacity_max", capacity_max, at_least=0, below=math.inf)
        check_range("capacity_num_iter", capacity_num_iter, at_least=0, whole=True)
        self.gamma = gamma
        self.capacity = LinearScheduler(0.0, capacity_max, capacity_num_iter)

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return D + gamma |mean R - C(step)|; nats per example."""
        q, p, _, distortion, rate = self.elbo_terms(batch.x, batch.y)
        penalty, logs = self.penalty(q, p, rate, step)
        del logs["capacity_loss"]  # not a part's loss: it starts near zero and grows with C
        return Loss.mean(distortion + penalty, distortion=distortion, rate=rate, penalty=penalty, **logs)

    def penalty(
        self, q: Any, p: Any, rate: Tensor, step: int | None = None, beta: float | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return gamma |mean R - C|, a scalar, and `current_capacity`, `capacity_loss`, `kl_capacity_diff` in nats.

        Raises:
            ValueError: if the step is not given, or a beta is.
        """
        if beta is not None:
            raise ValueError(f"beta has no place beside a capacity, whose weight is gamma; leave it out, got {beta}")
        if step is None:
            raise ValueError("the capacity changes with the step: give step=, the optimiser's step")
        difference = collective.gather(rate).mean() - self.capacity(step)
        penalty = self.gamma * difference.abs()
        logs = {"capacity_loss": penalty, "kl_capacity_diff": difference}
        return penalty, {"current_capacity": rate.new_tensor(self.capacity(step)), **logs}
