"""Microcanonical Langevin Monte Carlo, unadjusted."""

from __future__ import annotations

from typing_extensions import Unpack

from vaebench.energies.latent.auto import AutoTarget
from vaebench.energies.target import Target
from vaebench.mcmc.kernels.mclmc import MCLMCKernel
from vaebench.samplers.markov_chains import ChainSettings, MarkovChainSampler
from vaebench.schedules import Schedule


class MCLMC(MarkovChainSampler):
    """Microcanonical Langevin Monte Carlo, tuned during warm-up; biased by its step size, and says so.

    References:
        Microcanonical Hamiltonian Monte Carlo (Robnik, De Luca, Silverstein & Seljak, 2023),
        https://arxiv.org/abs/2212.08549
        Fluctuation without dissipation: microcanonical Langevin Monte Carlo (Robnik & Seljak, 2024),
        https://arxiv.org/abs/2303.18221
    Args:
        energy_function: What to draw from: an energy, or a target that builds one from a trained model; by default the
            density that suits the model.
        length: Distance after which a direction is forgotten, > 0; used where `step_size` is given, and nothing is
            tuned.
        thinning: Transitions per draw, >= 1; one of them costs two gradients.
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
        super().__init__(MCLMCKernel(length), energy_function, **settings)
