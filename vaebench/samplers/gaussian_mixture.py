"""A Gaussian mixture fitted to the latents after training."""

from __future__ import annotations

from typing import Any

import torch
from sklearn import mixture
from torch import Tensor
from typing_extensions import Self

from vaebench.energies.target import Split
from vaebench.mcmc.chains import ProgressFunction
from vaebench.samplers.base import BaseSampler, at_least


class GaussianMixtureSampler(BaseSampler):
    r"""Ex-post density estimation (Ghosh et al., 2020): a mixture of full-covariance Gaussians on encoded data.

    One latent is drawn from the posterior of each training example. These draws follow the aggregate posterior
    q(z) = E q(z|x), on which the decoder was trained; posterior means alone would be too narrow by E Var[z|x].

    References:
        From Variational to Deterministic Autoencoders (Ghosh et al., 2020), https://arxiv.org/abs/1903.12436
    Deviations:
        The authors fit the output of the encoder, in their code of a VAE the posterior means. Where the posterior is a
        point, as in their own models, a draw is the same.
    Args:
        num_components: Number of Gaussians, 10 in the paper, >= 1.
    """

    needs = frozenset({"posterior"})

    def __init__(self, num_components: int = 10) -> None:
        at_least("sampler.num_components", num_components, 1)
        self.num_components = num_components

    @torch.no_grad()
    def fit(self, model: Any, split: Split | None = None, batch_size: int = 1000) -> Self:
        """Encode the training split and fit the mixture by expectation maximisation.

        Raises:
            ValueError: if there are fewer examples than components.
        """
        self.check(model)
        if split is None or len(split) < max(2, self.num_components):
            raise ValueError(
                f"expected a training split of at least {max(2, self.num_components)} examples for "
                f"sampler.num_components={self.num_components}, got {0 if split is None else len(split)}"
            )
        like = next(model.parameters())
        latents = []
        for first in range(0, len(split), batch_size):
            batch = split.batch(torch.arange(first, min(first + batch_size, len(split)))).to(like.device)
            latents.append(model.posterior(batch.x, batch.y).sample())
        z = torch.cat(latents).flatten(1)
        seed = int(torch.randint(2**31, ()))
        fitted = mixture.GaussianMixture(self.num_components, covariance_type="full", random_state=seed, max_iter=1000)
        fitted.fit(z.double().cpu().numpy())
        self._weights = torch.from_numpy(fitted.weights_)
        self._means = torch.from_numpy(fitted.means_)
        self._scales = torch.linalg.cholesky(torch.from_numpy(fitted.covariances_))
        self._like = z[:0]
        return self

    def sample(self, num_samples: int, progress: ProgressFunction | None = None) -> Tensor:
        """Draw a component, then a latent from it, shape (N, D)."""
        at_least("num_samples", num_samples, 1)
        k = torch.multinomial(self._weights, num_samples, replacement=True)
        noise = torch.randn(num_samples, self._means.shape[1], 1, dtype=self._means.dtype)
        return (self._means[k] + (self._scales[k] @ noise).squeeze(-1)).to(self._like)
