"""Parallel tempering."""

from __future__ import annotations

from typing_extensions import Unpack

from vaebench.energies.latent.auto import AutoTarget
from vaebench.energies.target import Target
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.mcmc.kernels.kernel import Kernel
from vaebench.mcmc.kernels.parallel_tempering import ParallelTemperingKernel
from vaebench.samplers.markov_chains import ChainSettings, MarkovChainSampler


class ParallelTempering(MarkovChainSampler):
    """Chains with replicas at higher temperatures, which carry them between modes that are far apart.

    References:
        Replica Monte Carlo simulation of spin-glasses (Swendsen & Wang, 1986),
        https://doi.org/10.1103/PhysRevLett.57.2607
        Non-reversible parallel tempering: a scalable highly parallel MCMC scheme (Syed et al., 2022),
        https://arxiv.org/abs/1905.02939
    Args:
        energy_function: What to draw from: an energy, or a target that builds one from a trained model; by default the
            density that suits the model.
        kernel: What moves the replicas.
        num_temperatures: Replicas of each chain, >= 2.
        max_temperature: The highest temperature, > 1; the ladder to it is geometric.
        num_chains: Chains, each with its own replicas, >= 1.
        thinning: Transitions per draw, >= 1; replicas need many to travel the ladder.
        **settings: Those of `MarkovChainSampler`.
    """

    def __init__(  # type: ignore[misc]
        self,
        energy_function: Target = AutoTarget(),  # noqa: B008 - a frozen description
        *,
        kernel: Kernel = HMCKernel(),  # noqa: B008
        num_temperatures: int = 8,
        max_temperature: float = 50.0,
        num_chains: int = 16,
        thinning: int = 5,
        **settings: Unpack[ChainSettings],
    ) -> None:
        settings["num_chains"], settings["thinning"] = num_chains, thinning
        super().__init__(
            ParallelTemperingKernel(kernel, num_temperatures, max_temperature), energy_function, **settings
        )
