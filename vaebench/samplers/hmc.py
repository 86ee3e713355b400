"""Hamiltonian Monte Carlo on a density."""

from __future__ import annotations

from vaebench.energies.latent.auto import AutoTarget
from vaebench.energies.target import Target
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.samplers.mcmc import MCMC
from vaebench.schedules import Schedule


class HamiltonianMonteCarlo(MCMC):
    """Hamiltonian Monte Carlo with a tuned step size and diagonal mass matrix.

    References:
        MCMC using Hamiltonian dynamics (Neal, 2011), https://arxiv.org/abs/1206.1901
        The No-U-Turn Sampler (Hoffman & Gelman, 2014), https://arxiv.org/abs/1111.4246, for dual averaging.
    Args:
        energy_function: What to draw from: an energy, or a target that builds one from a trained model; by default the
            density that suits the model.
        num_chains: Chains, S, >= 1; R-hat asks for at least 4.
        num_warmup: Transitions before the first draw, >= 0.
        num_draws: Draws that every chain keeps at least, >= 4.
        thinning: Transitions per draw, >= 1.
        num_leapfrog: Mean number of leapfrog steps in a trajectory, >= 1.
        jitter: Relative half-width of the range of trajectory lengths, in [0, 1].
        step_size: Leapfrog step; null tunes it.
        target_acceptance: What to tune for, in (0, 1); optimal for long trajectories in many dimensions is 0.651, a
            little above it is safer.
        temperature: T > 0 of exp(-U / T); 1 is the target itself.
    """

    def __init__(
        self,
        energy_function: Target = AutoTarget(),  # noqa: B008 - a frozen description
        num_chains: int = 64,
        num_warmup: int = 300,
        num_draws: int = 400,
        thinning: int = 1,
        num_leapfrog: int = 10,
        jitter: float = 0.5,
        step_size: float | Schedule | None = None,
        target_acceptance: float | None = 0.8,
        temperature: float | Schedule = 1.0,
    ) -> None:
        super().__init__(
            HMCKernel(num_leapfrog, jitter),
            energy_function,
            num_chains,
            num_warmup,
            num_draws,
            thinning,
            step_size,
            target_acceptance,
            temperature,
        )
