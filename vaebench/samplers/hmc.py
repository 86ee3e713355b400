"""Hamiltonian Monte Carlo."""

from __future__ import annotations

from typing_extensions import Unpack

from vaebench.energies.latent.auto import AutoTarget
from vaebench.energies.target import Target
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.samplers.markov_chains import ChainSettings, MarkovChainSampler
from vaebench.schedules import Schedule


class HamiltonianMonteCarlo(MarkovChainSampler):
    """Hamiltonian Monte Carlo with a tuned step size and diagonal mass matrix.

    References:
        MCMC using Hamiltonian dynamics (Neal, 2011), https://arxiv.org/abs/1206.1901
        The No-U-Turn Sampler (Hoffman & Gelman, 2014), https://arxiv.org/abs/1111.4246, for dual averaging.
    Args:
        energy_function: What to draw from: an energy, or a target that builds one from a trained model; by default the
            density that suits the model.
        num_leapfrog: Mean number of leapfrog steps in a trajectory, >= 1.
        jitter: Relative half-width of the range of trajectory lengths, in [0, 1].
        target_acceptance: What to tune for, in (0, 1); optimal for long trajectories in many dimensions is 0.651, a
            little above it is safer.
        compile: Whether the transitions after warm-up are compiled: the same draws within rounding, about twice as fast
            where many chains move on a cheap energy, after a wait for the compiler; see `CompiledStep`.
        **settings: Those of `MarkovChainSampler`.
    """

    def __init__(  # type: ignore[misc]
        self,
        energy_function: Target = AutoTarget(),  # noqa: B008 - a frozen description
        *,
        num_leapfrog: int | Schedule = 10,
        jitter: float | Schedule = 0.5,
        target_acceptance: float | None = 0.8,
        compile: bool = False,
        **settings: Unpack[ChainSettings],
    ) -> None:
        settings["target_acceptance"] = target_acceptance
        super().__init__(HMCKernel(num_leapfrog, jitter), energy_function, compile=compile, **settings)
