"""Hamiltonian Monte Carlo on a density over the latent space."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from vaebench.energies.latent.auto import AutoTarget
from vaebench.energies.target import Split, Target
from vaebench.mcmc.chains import ProgressFunction
from vaebench.mcmc.kernels import hmc
from vaebench.samplers.base import BaseSampler, at_least, within
from vaebench.samplers.markov_chains import sample_chains


class HamiltonianMonteCarlo(BaseSampler):
    """Hamiltonian Monte Carlo with a tuned step size and diagonal mass matrix.

    All chains run at once. A warm-up tunes for all of them together and then freezes; with a step size of your own
    nothing is tuned and the mass matrix is the identity. The S chains keep `num_draws` draws each, or num_samples / S
    where that is more; diagnostics are computed over all of them, and `num_samples` are taken at equal distances.

    References:
        MCMC using Hamiltonian dynamics (Neal, 2011), https://arxiv.org/abs/1206.1901
        The No-U-Turn Sampler (Hoffman & Gelman, 2014), https://arxiv.org/abs/1111.4246, for dual averaging.
    Args:
        target: What to draw from; by default the density that suits the model.
        num_chains: Chains, S, >= 1; R-hat asks for at least 4. Where modes are so far apart that no chain crosses
            between them, S bounds how many of them are seen.
        num_warmup: Transitions before the first draw, >= 0.
        num_draws: Draws that every chain keeps at least, >= 4.
        thinning: Transitions per draw, >= 1.
        num_leapfrog: Mean number of leapfrog steps in a trajectory, >= 1.
        jitter: Relative half-width of the range of trajectory lengths, in [0, 1].
        step_size: Leapfrog step; null tunes it.
        target_acceptance: What to tune for, in (0, 1); optimal for long trajectories in many dimensions is 0.651, a
            little above it is safer.
    """

    def __init__(
        self,
        target: Target = AutoTarget(),  # noqa: B008 - a frozen description
        num_chains: int = 64,
        num_warmup: int = 300,
        num_draws: int = 400,
        thinning: int = 1,
        num_leapfrog: int = 10,
        jitter: float = 0.5,
        step_size: float | None = None,
        target_acceptance: float = 0.8,
    ) -> None:
        at_least("sampler.num_chains", num_chains, 1)
        at_least("sampler.num_warmup", num_warmup, 1 if step_size is None else 0)
        at_least("sampler.num_draws", num_draws, 4)
        at_least("sampler.thinning", thinning, 1)
        at_least("sampler.num_leapfrog", num_leapfrog, 1)
        if not 0 <= jitter <= 1:
            raise ValueError(f"expected sampler.jitter between 0 and 1, got {jitter}")
        within("sampler.step_size", step_size, 0, float("inf"))
        within("sampler.target_acceptance", target_acceptance, 0, 1)
        self.target = target
        self.needs = target.needs
        self.num_chains = num_chains
        self.num_warmup = num_warmup
        self.num_draws = num_draws
        self.thinning = thinning
        self.num_leapfrog = num_leapfrog
        self.jitter = jitter
        self.step_size = step_size
        self.target_acceptance = target_acceptance

    def why_not(self, model: Any) -> str | None:
        """Say why the target does not exist for `model`, or None where it does."""
        return self.target.why_not(model)

    @torch.no_grad()
    def fit(self, model: Any, split: Split | None = None) -> Self:
        """Build the energy of the target."""
        self.check(model)
        self._energy = self.target.energy(model, split)
        self._like = next(model.parameters()).detach()
        return self

    def sample(self, num_samples: int, progress: ProgressFunction | None = None) -> Tensor:
        """Run the chains, shape (N, D)."""
        at_least("num_samples", num_samples, 1)
        z, self.report = sample_chains(
            hmc.HMCKernel(self._energy.value_and_grad, self.num_leapfrog, self.jitter, self._energy.gradient),
            self._energy.start(self.num_chains),
            num_samples,
            num_draws=self.num_draws,
            num_warmup=self.num_warmup,
            thinning=self.thinning,
            step_size=self.step_size,
            target_acceptance=self.target_acceptance,
            progress=progress,
        )
        return z.to(self._like)
