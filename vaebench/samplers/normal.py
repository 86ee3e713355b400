"""Draws from the prior."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from typing_extensions import Self

from vaebench.energies.target import Split
from vaebench.mcmc.chains import ProgressFunction
from vaebench.samplers.base import BaseSampler, at_least


class NormalSampler(BaseSampler):
    r"""Ancestral sampling from the prior: z ~ N(0, T^2 I) for the standard normal one.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2014), https://arxiv.org/abs/1312.6114
    Args:
        temperature: T, scale of the deviations from the prior's mean, >= 0. Below 1 samples are more typical and less
            diverse, and no longer the model's.
    """

    needs = frozenset({"prior"})

    def __init__(self, temperature: float = 1.0) -> None:
        at_least("sampler.temperature", temperature, 0)
        self.temperature = temperature

    def fit(self, model: Any, split: Split | None = None) -> Self:
        """Take the model's prior; no data is needed."""
        self.check(model)
        self._prior = model.prior()
        if self.temperature != 1 and not hasattr(self._prior, "stddev"):
            raise ValueError(
                f"expected a Gaussian prior for sampler.temperature={self.temperature}, got "
                f"{type(self._prior).__name__}; leave it at 1"
            )
        return self

    def sample(self, num_samples: int, progress: ProgressFunction | None = None) -> Tensor:
        """Draw independent latents, shape (N, D)."""
        at_least("num_samples", num_samples, 1)
        z = self._prior.sample((num_samples,)).detach()
        if self.temperature == 1:
            return z
        mean = self._prior.mean.detach()
        return mean + self.temperature * (z - mean)
