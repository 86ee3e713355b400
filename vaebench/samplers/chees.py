"""Hamiltonian Monte Carlo with ChEES."""

from __future__ import annotations

from typing_extensions import Unpack

from vaebench.energies.latent.auto import AutoTarget
from vaebench.energies.target import Target
from vaebench.mcmc.kernels.chees_hmc import ChEESHMCKernel
from vaebench.samplers.markov_chains import ChainSettings, MarkovChainSampler
from vaebench.schedules import Schedule


class ChEES(MarkovChainSampler):
    """Hamiltonian Monte Carlo whose step size and trajectory length are tuned over all chains during warm-up.

    References:
        An adaptive-MCMC scheme for setting trajectory lengths in Hamiltonian Monte Carlo (Hoffman, Radul & Sountsov,
        2021), https://proceedings.mlr.press/v130/hoffman21a.html
    Args:
        energy_function: What to draw from: an energy, or a target that builds one from a trained model; by default the
            density that suits the model.
        length: Time of a trajectory at most, > 0; used where `step_size` is given, and nothing is tuned.
        **settings: Those of `MarkovChainSampler`.
    """

    def __init__(
        self,
        energy_function: Target = AutoTarget(),  # noqa: B008 - a frozen description
        *,
        length: float | Schedule = 1.0,
        **settings: Unpack[ChainSettings],
    ) -> None:
        super().__init__(ChEESHMCKernel(length), energy_function, **settings)
