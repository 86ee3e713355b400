"""A kernel density estimate on the latents after training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from vaebench.core import Draws, ProgressFunction, Split
from vaebench.hardware import collective
from vaebench.messages import check_range
from vaebench.samplers.base import BaseSampler


class KernelDensitySampler(BaseSampler):
    r"""Ex-post density estimation without a model: an encoded example, and Gaussian noise around it.

    .. math:: z = z_n + h \, \mathrm{diag}(s) \, \epsilon, \quad h = N^{-1 / (D + 4)}

    with s the standard deviations of the latents. For a model with labels z_n is an example with the label asked for,
    and s and N are those of its label.

    References:
        Multivariate Density Estimation (Scott, 1992), https://doi.org/10.1002/9780470316849, for the bandwidth h.
    Args:
        num_centers: Most encoded examples that are kept, drawn at random, >= 2.
        temperature: T, scale of the noise, >= 0; 0 draws encoded examples themselves.
        refit: Whether to fit again even if a fitted estimate is stored beside the samples.
    """

    learns = True
    needs = frozenset({"posterior"})
    excludes = frozenset({"codes"})
    centers: Tensor
    count: Tensor
    scale: Tensor

    def __init__(self, num_centers: int = 5000, temperature: float = 1.0, refit: bool = False) -> None:
        super().__init__()
        check_range("num_centers", num_centers, at_least=2, whole=True)
        check_range("temperature", temperature, at_least=0, below=math.inf)
        self.num_centers = num_centers
        self.temperature = temperature
        self.refit = refit

    @property
    def most_rows(self) -> dict[str, int]:
        """Of the buffer whose length depends on the data."""
        return {"centers": self.num_centers}

    def setup(self, model: Any = None, split: Split | None = None) -> Self:
        """Make room for the estimate, of whose centers there may be fewer than `num_centers`."""
        super().setup(model, split)
        num_features = math.prod(self.latent_shape)
        self.register_buffer("centers", torch.zeros(0, num_features, device=self.like.device))
        num_densities = max(1, self.num_labels)
        self.register_buffer("count", torch.zeros(num_densities, dtype=torch.int64, device=self.like.device))
        self.register_buffer("scale", torch.zeros(num_densities, num_features, device=self.like.device))
        return self

    def fit(self, latents: Draws, progress: ProgressFunction | None = None, folder: Path | None = None) -> Self:
        """Keep latents, and set the bandwidth.

        Raises:
            ValueError: if there are fewer than two latents, or labels are missing.
        """
        z = latents.z.flatten(1).float()
        if len(z) < 2:
            raise ValueError(f"expected at least 2 latents to fit sampler={self.name} to, got {len(z)}")
        context = self.context(latents.y)
        label = torch.zeros(len(z), dtype=torch.int64, device=z.device) if context is None else context.argmax(1)
        rows = collective.permutation(len(z), z.device)[: self.num_centers]
        rows = rows[label[rows].argsort(stable=True)]  # centers of a label become neighbours
        self.centers = z[rows]
        self.count.copy_(torch.bincount(label[rows], minlength=len(self.count)))
        for k, count in enumerate(self.count.tolist()):
            of_label = z[label == k]
            deviations = of_label.std(0) if len(of_label) > 1 else torch.zeros_like(z[0])
            self.scale[k] = deviations * max(1, count) ** (-1 / (z.shape[1] + 4))
        return self

    @torch.no_grad()
    def sample(self, num_samples: int, y: Tensor | None = None, *, progress: ProgressFunction | None = None) -> Draws:
        """Draw a center, then noise.

        Raises:
            ValueError: if the estimate is not fitted, or no center has a label that is asked for.
        """
        y = self.labels(num_samples, y)
        if not self.count.any():
            raise ValueError("the density is not fitted; call fit first")
        context = self.context(y)
        label = torch.zeros(num_samples, dtype=torch.int64) if context is None else context.argmax(1)
        label = label.to(self.count.device)
        count, first = self.count[label], (self.count.cumsum(0) - self.count)[label]
        if not count.all():
            raise ValueError(f"sampler={self.name} has no center with the label {int(label[count == 0][0])}")
        u = collective.uniform((num_samples,), self.scale.double())
        rows = first + (u * count).long().clamp(max=count - 1)
        noise = collective.standard_normal((num_samples, self.scale.shape[1]), self.scale)
        z = self.centers[rows] + self.temperature * self.scale[label] * noise
        return Draws(z.to(self.like).view(num_samples, *self.latent_shape), y)
