"""Markov chains: any kernel on any target."""

from __future__ import annotations

from typing_extensions import Unpack

from vaebench.energies.latent.auto import AutoTarget
from vaebench.energies.target import Target
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.mcmc.kernels.kernel import Kernel
from vaebench.samplers.markov_chains import ChainSettings, MarkovChainSampler


class MCMC(MarkovChainSampler):
    """Markov chains with any kernel on any target; its name is the kernel's.

    References:
        Monte Carlo sampling methods using Markov chains and their applications (Hastings, 1970),
        https://doi.org/10.1093/biomet/57.1.97
    Args:
        kernel: The transition.
        target: What to draw from; by default the density that suits the model.
        **settings: Those of `MarkovChainSampler`.
    """

    def __init__(
        self,
        kernel: Kernel = HMCKernel(),  # noqa: B008 - a frozen description
        target: Target = AutoTarget(),  # noqa: B008
        **settings: Unpack[ChainSettings],
    ) -> None:
        super().__init__(kernel, target, **settings)

    @property
    def name(self) -> str:
        """The name of the kernel."""
        return self.kernel.name
