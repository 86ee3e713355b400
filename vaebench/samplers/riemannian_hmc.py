"""Riemannian manifold Hamiltonian Monte Carlo."""

from __future__ import annotations

from typing import Literal

from typing_extensions import Unpack

from vaebench.energies.latent.auto import AutoTarget
from vaebench.energies.target import Target
from vaebench.mcmc.kernels.riemannian_hmc import RiemannianHMCKernel
from vaebench.samplers.markov_chains import ChainSettings, MarkovChainSampler


class RiemannianHMC(MarkovChainSampler):
    """Hamiltonian Monte Carlo with a metric at every point, for targets whose scales differ from place to place.

    References:
        Riemann manifold Langevin and Hamiltonian Monte Carlo methods (Girolami & Calderhead, 2011),
        https://doi.org/10.1111/j.1467-9868.2010.00765.x
        A general metric for Riemannian manifold Hamiltonian Monte Carlo (Betancourt, 2013),
        https://arxiv.org/abs/1212.4693
    Args:
        energy_function: What to draw from: an energy, or a target that builds one from a trained model; by default the
            density that suits the model.
        metric: `softabs`, of the energy's Hessian, or `target`, which takes the energy's own: target=manifold has one.
        num_leapfrog: Mean number of implicit steps in a trajectory, >= 1.
        jitter: Relative half-width of the range of lengths, in [0, 1].
        alpha: Of SoftAbs: the smallest eigenvalue of the metric is 1 / alpha.
        max_iterations: Fixed-point iterations of a step at most, >= 1.
        num_chains: Chains, S, >= 1.
        num_warmup: Transitions before the first draw, >= 0.
        **settings: Those of `MarkovChainSampler`.
    """

    def __init__(  # type: ignore[misc]
        self,
        energy_function: Target = AutoTarget(),  # noqa: B008 - a frozen description
        *,
        metric: Literal["softabs", "target"] = "softabs",
        num_leapfrog: int = 6,
        jitter: float = 0.5,
        alpha: float = 1.0,
        max_iterations: int = 50,
        num_chains: int = 16,
        num_warmup: int = 100,
        **settings: Unpack[ChainSettings],
    ) -> None:
        settings["num_chains"], settings["num_warmup"] = num_chains, num_warmup
        kernel = RiemannianHMCKernel(metric, num_leapfrog, jitter, alpha, max_iterations)
        super().__init__(kernel, energy_function, **settings)
