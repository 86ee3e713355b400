"""Generalised Hamiltonian Monte Carlo with MEADS."""

from __future__ import annotations

from typing_extensions import Unpack

from vaebench.energies.latent.auto import AutoTarget
from vaebench.energies.target import Target
from vaebench.mcmc.kernels.ghmc import GHMCKernel
from vaebench.samplers.markov_chains import ChainSettings, MarkovChainSampler
from vaebench.schedules import Schedule


class MEADS(MarkovChainSampler):
    """Generalised Hamiltonian Monte Carlo, all of whose parameters are read off the chains during warm-up.

    One gradient per transition. It needs many chains: fewer than 16 form a single fold.

    References:
        Tuning-free generalized Hamiltonian Monte Carlo (Hoffman & Sountsov, 2022),
        https://proceedings.mlr.press/v151/hoffman22a.html
    Args:
        energy_function: What to draw from: an energy, or a target that builds one from a trained model; by default the
            density that suits the model.
        length: Time after which the momentum is forgotten, > 0; used where `step_size` is given, and nothing is tuned.
        thinning: Transitions per draw, >= 1; one of them is a single leapfrog step.
        **settings: Those of `MarkovChainSampler`.
    """

    def __init__(  # type: ignore[misc]
        self,
        energy_function: Target = AutoTarget(),  # noqa: B008 - a frozen description
        *,
        length: float | Schedule = 1.0,
        thinning: int = 5,
        **settings: Unpack[ChainSettings],
    ) -> None:
        settings["thinning"] = thinning
        super().__init__(GHMCKernel(length), energy_function, **settings)
