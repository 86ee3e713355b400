"""The No-U-Turn Sampler."""

from __future__ import annotations

from typing_extensions import Unpack

from vaebench.energies.latent.auto import AutoTarget
from vaebench.energies.target import Target
from vaebench.mcmc.kernels.nuts import NUTSKernel
from vaebench.samplers.markov_chains import ChainSettings, MarkovChainSampler


class NUTS(MarkovChainSampler):
    """Hamiltonian Monte Carlo that finds the length of each trajectory, with a tuned step size and mass matrix.

    References:
        The No-U-Turn Sampler (Hoffman & Gelman, 2014), https://arxiv.org/abs/1111.4246
        A conceptual introduction to Hamiltonian Monte Carlo (Betancourt, 2017), https://arxiv.org/abs/1701.02434
    Args:
        energy_function: What to draw from: an energy, or a target that builds one from a trained model; by default the
            density that suits the model.
        max_depth: Doublings of a trajectory at most, >= 1: 2^max_depth - 1 gradients.
        num_chains: Chains, S, >= 1; each transition waits for the longest trajectory among them.
        **settings: Those of `MarkovChainSampler`.
    """

    def __init__(  # type: ignore[misc]
        self,
        energy_function: Target = AutoTarget(),  # noqa: B008 - a frozen description
        *,
        max_depth: int = 10,
        num_chains: int = 16,
        **settings: Unpack[ChainSettings],
    ) -> None:
        settings["num_chains"] = num_chains
        super().__init__(NUTSKernel(max_depth), energy_function, **settings)
