"""Hamiltonian Monte Carlo on the volume of a learned metric, with the settings of its authors."""

from __future__ import annotations

from vaebench.energies.latent.manifold import ManifoldTarget
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.samplers.mcmc import MCMC
from vaebench.schedules import Schedule


class RHVAESampler(MCMC):
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
        num_chains: Chains, S, >= 1; R-hat asks for at least 4. Where modes are so far apart that no chain crosses
            between them, S bounds how many of them are seen.
        num_warmup: Transitions before the first draw, >= 0.
        num_draws: Draws that every chain keeps at least, >= 4.
        thinning: Transitions per draw, >= 1.
        num_leapfrog: Leapfrog steps in a trajectory, >= 1.
        step_size: Leapfrog step; null tunes it, and a diagonal mass matrix, during warm-up.
        temperature: T > 0 of exp(-U / T); 1 is the density itself.
    """

    def __init__(
        self,
        num_chains: int = 64,
        num_warmup: int = 100,
        num_draws: int = 400,
        thinning: int = 1,
        num_leapfrog: int = 15,
        step_size: float | Schedule | None = 0.03,
        temperature: float | Schedule = 1.0,
    ) -> None:
        super().__init__(
            HMCKernel(num_leapfrog, jitter=0),
            ManifoldTarget(),
            num_chains,
            num_warmup,
            num_draws,
            thinning,
            step_size,
            temperature=temperature,
        )

    def why_not(self, model: object) -> str | None:
        """Say why the model has no manifold, or None where it has."""
        return super(MCMC, self).why_not(model)
