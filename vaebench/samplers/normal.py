"""Draws from the prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from vaebench.core import Draws, ProgressFunction, Split
from vaebench.distributions.temperature import check_temperature, tempered
from vaebench.samplers.base import BaseSampler


class NormalSampler(BaseSampler):
    r"""Ancestral sampling from the prior: z ~ N(0, T^2 I) for the standard normal one.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2014), https://arxiv.org/abs/1312.6114
    Args:
        temperature: T, scale of the deviations from the prior's mean, >= 0. Below 1 samples are more typical and less
            diverse, and no longer the model's. Of a hierarchy also a list, one for each group, the top group first.
    """

    needs = frozenset({"prior"})

    def __init__(self, temperature: float | Sequence[float] = 1.0) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def setup(self, model: Any = None, split: Split | None = None) -> Self:
        """Take the model's prior; no data is needed."""
        super().setup(model, split)
        self._prior, self._group_sizes = model.prior, getattr(model, "group_sizes", [])
        return self

    @torch.no_grad()
    def sample(self, num_samples: int, y: Tensor | None = None, *, progress: ProgressFunction | None = None) -> Draws:
        """Draw independent latents."""
        y = self.labels(num_samples, y)
        prior = self._prior() if y is None else self._prior(y)
        if self.temperature != 1 and not hasattr(prior, "stddev"):
            raise ValueError(
                f"expected a Gaussian prior for sampler.temperature={self.temperature}, got {type(prior).__name__}; "
                "leave it at 1"
            )
        z = prior.sample() if len(prior.batch_shape) else prior.sample((num_samples,))
        z = z.detach()
        if self.temperature != 1:
            z = tempered(z, prior.mean.detach(), self.temperature, self._group_sizes)
        return Draws(z, y)
