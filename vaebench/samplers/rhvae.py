"""Hamiltonian Monte Carlo on the volume of a learned metric, with the settings of its authors."""

from __future__ import annotations

from typing import Any

from typing_extensions import Unpack

from vaebench.energies.latent.manifold import ManifoldTarget
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.samplers.base import BaseSampler
from vaebench.samplers.markov_chains import ChainSettings, MarkovChainSampler
from vaebench.schedules import Schedule


class RHVAESampler(MarkovChainSampler):
    r"""Manifold sampling: HMC on the density proportional to sqrt(det G^-1(z)), from randomly chosen centroids.

    Euclidean HMC with unit mass, fixed step size and trajectory length, and Metropolis acceptance in log space.

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
        num_leapfrog: Leapfrog steps in a trajectory, >= 1.
        num_warmup: Transitions before the first draw, >= 0.
        step_size: Leapfrog step; null tunes it, and a diagonal mass matrix, during warm-up.
        **settings: Those of `MarkovChainSampler`.
    """

    def __init__(  # type: ignore[misc]
        self,
        *,
        num_leapfrog: int = 15,
        num_warmup: int = 100,
        step_size: float | Schedule | None = 0.03,
        **settings: Unpack[ChainSettings],
    ) -> None:
        settings["num_warmup"], settings["step_size"] = num_warmup, step_size
        super().__init__(HMCKernel(num_leapfrog, jitter=0), ManifoldTarget(), **settings)

    def why_not(self, model: Any) -> str | None:
        """Say why the model has no manifold, or None where it has."""
        return BaseSampler.why_not(self, model)
