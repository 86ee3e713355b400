"""Unadjusted Langevin dynamics."""

from __future__ import annotations

from typing_extensions import Unpack

from vaebench.energies.latent.auto import AutoTarget
from vaebench.energies.target import Target
from vaebench.mcmc.kernels.langevin import LangevinKernel
from vaebench.samplers.markov_chains import ChainSettings, MarkovChainSampler
from vaebench.schedules import Schedule


class LangevinDynamics(MarkovChainSampler):
    r"""Unadjusted Langevin dynamics: x' = x - eta grad U(x) + sqrt(2 eta T) xi.

    The usual short-run sampler of energy-based models. Its step size biases it, and its report says so.

    References:
        Exponential convergence of Langevin distributions and their discrete approximations (Roberts & Tweedie, 1996),
        https://doi.org/10.2307/3318418
    Args:
        energy_function: What to draw from: an energy, or a target that builds one from a trained model; by default the
            density that suits the model.
        step_size: eta > 0, or its schedule.
        thinning: Transitions per draw, >= 1; short steps need many.
        compile: Whether the transitions after warm-up are compiled: the same draws within rounding, about twice as fast
            where many chains move on a cheap energy, after a wait for the compiler; see `CompiledStep`.
        **settings: Those of `MarkovChainSampler`.
    """

    def __init__(  # type: ignore[misc]
        self,
        energy_function: Target = AutoTarget(),  # noqa: B008 - a frozen description
        *,
        step_size: float | Schedule | None = 0.01,
        thinning: int = 10,
        compile: bool = False,
        **settings: Unpack[ChainSettings],
    ) -> None:
        settings["step_size"], settings["thinning"] = step_size, thinning
        super().__init__(LangevinKernel(), energy_function, compile=compile, **settings)
