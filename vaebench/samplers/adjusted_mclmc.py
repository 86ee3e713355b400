"""Microcanonical Monte Carlo, accepted or rejected."""

from __future__ import annotations

from typing_extensions import Unpack

from vaebench.energies.latent.auto import AutoTarget
from vaebench.energies.target import Target
from vaebench.mcmc.kernels.adjusted_mclmc import AdjustedMCLMCKernel
from vaebench.samplers.markov_chains import ChainSettings, MarkovChainSampler
from vaebench.schedules import Schedule


class AdjustedMCLMC(MarkovChainSampler):
    """Microcanonical trajectories whose ends are accepted or rejected, tuned during warm-up.

    References:
        Metropolis adjusted microcanonical Hamiltonian Monte Carlo (Robnik, Cohn-Gordon & Seljak, 2025),
        https://arxiv.org/abs/2503.01707
    Args:
        energy_function: What to draw from: an energy, or a target that builds one from a trained model; by default the
            density that suits the model.
        length: Mean length of a trajectory, > 0; used where `step_size` is given, and nothing is tuned.
        **settings: Those of `MarkovChainSampler`.
    """

    def __init__(
        self,
        energy_function: Target = AutoTarget(),  # noqa: B008 - a frozen description
        *,
        length: float | Schedule = 1.0,
        **settings: Unpack[ChainSettings],
    ) -> None:
        super().__init__(AdjustedMCLMCKernel(length), energy_function, **settings)
