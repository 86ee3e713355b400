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
        **settings: Those of `MarkovChainSampler`.
    """

    def __init__(
        self,
        energy_function: Target = AutoTarget(),  # noqa: B008 - a frozen description
        *,
        max_depth: int = 10,
        **settings: Unpack[ChainSettings],
    ) -> None:
        super().__init__(NUTSKernel(max_depth), energy_function, **settings)
