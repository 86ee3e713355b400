"""A Gaussian mixture fitted to the latents after training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from vaebench.core import Draws, ProgressFunction, Split
from vaebench.messages import check_range
from vaebench.samplers.base import BaseSampler

MOST_BYTES = 4 * 2**30  # for all covariances
MANY_DIMENSIONS = 256  # of a covariance that takes long to fit


class GaussianMixtureSampler(BaseSampler):
    r"""Ex-post density estimation (Ghosh et al., 2020): a mixture of full-covariance Gaussians on encoded data.

    The Gaussians start from k-means. For a model with labels they are the same for all labels, and each label has its
    own weights: the mean responsibilities of its latents.

    References:
        From Variational to Deterministic Autoencoders (Ghosh et al., 2020), https://arxiv.org/abs/1903.12436
    Deviations:
        The authors fit the output of the encoder, in their code of a VAE the posterior means; here the mixture is
        fitted to one draw from each posterior. Where the posterior is a point, as in their own models, that is the
        same.
    Args:
        num_components: Number of Gaussians, 10 in the paper, >= 1.
        temperature: T, scale of the deviations from a component's mean, >= 0; 1 is what was fitted.
        refit: Whether to fit again even if a fitted mixture is stored beside the samples.
    """

    learns = True
    needs = frozenset({"posterior"})
    excludes = frozenset({"codes"})
    weights: Tensor
    means: Tensor
    scales: Tensor

    def __init__(self, num_components: int = 10, temperature: float = 1.0, refit: bool = False) -> None:
        super().__init__()
        check_range("num_components", num_components, at_least=1, whole=True)
        check_range("temperature", temperature, at_least=0, below=float("inf"))
        self.num_components = num_components
        self.temperature = temperature
        self.refit = refit

    def too_large(self, num_dims: int) -> str | None:
        """Say what memory the covariances take."""
        num_bytes = 8 * self.num_components * num_dims**2
        if num_bytes <= MOST_BYTES:
            return None
        return (
            f"it has a covariance of {num_dims} x {num_dims} for each of {self.num_components} components, "
            f"{num_bytes / 2**30:.1f} GiB, more than {MOST_BYTES / 2**30:g}; choose sampler=normal"
        )

    def too_slow(self, num_dims: int) -> str | None:
        """Say what many dimensions cost, in time and in examples."""
        if num_dims <= MANY_DIMENSIONS:
            return None
        return (
            f"fits {self.num_components} covariances of {num_dims} x {num_dims}: that takes minutes, and each needs "
            f"well over {num_dims} examples; sampler=normal needs no fit"
        )

    def setup(self, model: Any = None, split: Split | None = None) -> Self:
        """Make room for the mixture, on the CPU in float64."""
        super().setup(model, split)
        k, d = self.num_components, math.prod(self.latent_shape)
        self.register_buffer("weights", torch.zeros(max(1, self.num_labels), k, dtype=torch.float64))
        self.register_buffer("means", torch.zeros(k, d, dtype=torch.float64))
        self.register_buffer("scales", torch.zeros(k, d, d, dtype=torch.float64))
        return self

    def fit(self, latents: Draws, progress: ProgressFunction | None = None, folder: Path | None = None) -> Self:
        """Fit the mixture by expectation maximisation.

        Raises:
            ValueError: if there are fewer latents than components, or labels are missing.
        """
        from sklearn import mixture

        least = max(2, self.num_components)
        if len(latents) < least:
            raise ValueError(
                f"expected a training split of at least {least} examples for "
                f"sampler.num_components={self.num_components}, got {len(latents)}"
            )
        seed = int(torch.randint(2**31, ()))
        fitted = mixture.GaussianMixture(self.num_components, covariance_type="full", random_state=seed, max_iter=1000)
        z, context = latents.z.flatten(1).double().cpu().numpy(), self.context(latents.y)
        fitted.fit(z)
        weights = torch.from_numpy(fitted.weights_)
        self.weights.copy_(weights)
        if context is not None:
            of_label = context.T.cpu().double() @ torch.from_numpy(fitted.predict_proba(z))
            is_seen = of_label.sum(1) > 0  # unseen labels get the weights of all
            self.weights[is_seen] = of_label[is_seen] / of_label[is_seen].sum(1, keepdim=True)
        self.means.copy_(torch.from_numpy(fitted.means_))
        self.scales.copy_(torch.linalg.cholesky(torch.from_numpy(fitted.covariances_)))
        return self

    @torch.no_grad()
    def sample(self, num_samples: int, y: Tensor | None = None, *, progress: ProgressFunction | None = None) -> Draws:
        """Draw a component, then a latent from it."""
        y = self.labels(num_samples, y)
        if not self.weights.any():
            raise ValueError("the mixture is not fitted; call fit first")
        context = self.context(y)
        if context is None:
            k = torch.multinomial(self.weights[0], num_samples, replacement=True)
        else:
            k = torch.multinomial(context.to(self.weights) @ self.weights, 1).squeeze(1)
        noise = self.temperature * torch.randn(num_samples, self.means.shape[1], 1, dtype=self.means.dtype)
        z = self.means[k] + (self.scales[k] @ noise).squeeze(-1)
        return Draws(z.to(self.like).view(num_samples, *self.latent_shape), y)
