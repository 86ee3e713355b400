"""The Metropolis-adjusted Langevin algorithm."""

from __future__ import annotations

from typing_extensions import Unpack

from vaebench.energies.latent.auto import AutoTarget
from vaebench.energies.target import Target
from vaebench.mcmc.kernels.mala import MALAKernel
from vaebench.samplers.markov_chains import ChainSettings, MarkovChainSampler


class MetropolisAdjustedLangevin(MarkovChainSampler):
    """Langevin steps that are accepted or rejected, with a tuned step size and diagonal preconditioner.

    References:
        Exponential convergence of Langevin distributions and their discrete approximations (Roberts & Tweedie, 1996),
        https://doi.org/10.2307/3318418
        Optimal scaling of discrete approximations to Langevin diffusions (Roberts & Rosenthal, 1998),
        https://doi.org/10.1111/1467-9868.00123
    Args:
        energy_function: What to draw from: an energy, or a target that builds one from a trained model; by default the
            density that suits the model.
        compile: Whether the transitions after warm-up are compiled: the same draws within rounding, about twice as fast
            where many chains move on a cheap energy, after a wait for the compiler; see `CompiledStep`.
        **settings: Those of `MarkovChainSampler`.
    """

    def __init__(
        self,
        energy_function: Target = AutoTarget(),  # noqa: B008 - a frozen description
        *,
        compile: bool = False,
        **settings: Unpack[ChainSettings],
    ) -> None:
        super().__init__(MALAKernel(), energy_function, compile=compile, **settings)
