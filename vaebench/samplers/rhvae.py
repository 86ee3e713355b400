"""Hamiltonian Monte Carlo on the volume of a learned metric, with the settings of its authors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from vaebench.energies.latent.manifold import ManifoldTarget
from vaebench.energies.target import Split
from vaebench.mcmc.chains import ProgressFunction
from vaebench.mcmc.kernels import hmc
from vaebench.samplers.base import BaseSampler, at_least, within
from vaebench.samplers.markov_chains import sample_chains


class RHVAESampler(BaseSampler):
    r"""Manifold sampling: HMC on the density proportional to sqrt(det G^-1(z)), from randomly chosen centroids.

    Euclidean HMC with unit mass, fixed step size and trajectory length, and Metropolis acceptance in log space. The S
    chains keep `num_draws` draws each, or num_samples / S where that is more; diagnostics are computed over all of
    them, and `num_samples` are taken at equal distances.

    References:
        Data Augmentation in High Dimensional Low Sample Size Setting Using a Geometry-Based VAE
        (Chadebec et al., 2021), https://arxiv.org/abs/2105.00026. Step size 0.03, 15 leapfrog steps and 100
        transitions before a draw are the defaults of the first author's implementation,
        https://github.com/clementchadebec/benchmark_VAE.
    Deviations:
        No tempering of the momentum inside a trajectory (theirs is switched off by default, beta_zero = 1, and without
        its Jacobian would not leave the density invariant). Chains go on after the first draw instead of one chain per
        sample, which lets their convergence be judged.
    Args:
        num_chains: Chains, S, >= 1; R-hat asks for at least 4. Where modes are so far apart that no chain crosses
            between them, S bounds how many of them are seen.
        num_warmup: Transitions before the first draw, >= 0.
        num_draws: Draws that every chain keeps at least, >= 4.
        thinning: Transitions per draw, >= 1.
        num_leapfrog: Leapfrog steps in a trajectory, >= 1.
        step_size: Leapfrog step; null tunes it, and a diagonal mass matrix, during warm-up.
    """

    needs = frozenset({"manifold"})

    def __init__(
        self,
        num_chains: int = 64,
        num_warmup: int = 100,
        num_draws: int = 400,
        thinning: int = 1,
        num_leapfrog: int = 15,
        step_size: float | None = 0.03,
    ) -> None:
        at_least("sampler.num_chains", num_chains, 1)
        at_least("sampler.num_warmup", num_warmup, 1 if step_size is None else 0)
        at_least("sampler.num_draws", num_draws, 4)
        at_least("sampler.thinning", thinning, 1)
        at_least("sampler.num_leapfrog", num_leapfrog, 1)
        within("sampler.step_size", step_size, 0, float("inf"))
        self.num_chains = num_chains
        self.num_warmup = num_warmup
        self.num_draws = num_draws
        self.thinning = thinning
        self.num_leapfrog = num_leapfrog
        self.step_size = step_size

    @torch.no_grad()
    def fit(self, model: Any, split: Split | None = None) -> Self:
        """Take the model's metric, which carries what it learned from the data."""
        self.check(model)
        self._energy = ManifoldTarget().energy(model, split)
        self._like = next(model.parameters()).detach()
        return self

    def sample(self, num_samples: int, progress: ProgressFunction | None = None) -> Tensor:
        """Run the chains, shape (N, D)."""
        at_least("num_samples", num_samples, 1)
        z, self.report = sample_chains(
            hmc.HMCKernel(self._energy.value_and_grad, self.num_leapfrog, jitter=0, gradient=self._energy.gradient),
            self._energy.start(self.num_chains),
            num_samples,
            num_draws=self.num_draws,
            num_warmup=self.num_warmup,
            thinning=self.thinning,
            step_size=self.step_size,
            progress=progress,
        )
        return z.to(self._like)
