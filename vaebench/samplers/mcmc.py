"""Markov chains: any kernel on any target."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from vaebench.core import Draws, ProgressFunction, Split
from vaebench.energies.base import BaseEnergyFunction
from vaebench.energies.latent.auto import AutoTarget
from vaebench.energies.target import Target
from vaebench.mcmc.chains import Chains, run_chains
from vaebench.mcmc.diagnostics import MIN_DRAWS, diagnose
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.mcmc.kernels.kernel import Kernel
from vaebench.messages import check_range
from vaebench.samplers.base import BaseSampler
from vaebench.schedules import Schedule


class MCMC(BaseSampler):
    """Markov chains with any kernel on any target.

    All chains run at once. A warm-up tunes for all of them together and then freezes; with a step size of your own
    nothing is tuned and the mass matrix is the identity. The S chains keep `num_draws` draws each, or num_samples / S
    where that is more; diagnostics are computed over all of them, and `num_samples` are taken at equal distances.

    Args:
        kernel: The transition.
        target: What to draw from; by default the density that suits the model.
        num_chains: Chains, S, >= 1; R-hat asks for at least 4. Where modes are so far apart that no chain crosses
            between them, S bounds how many of them are seen.
        num_warmup: Transitions before the first draw, >= 0.
        num_draws: Draws that every chain keeps at least, >= 4.
        thinning: Transitions per draw, >= 1.
        step_size: Of the kernel; null tunes it, where the kernel can be tuned.
        target_acceptance: What to tune for, in (0, 1); null is the kernel's own.
        temperature: T > 0 of exp(-U / T); 1 is the target itself.
    """

    def __init__(
        self,
        kernel: Kernel = HMCKernel(),  # noqa: B008 - a frozen description
        target: Target = AutoTarget(),  # noqa: B008
        num_chains: int = 64,
        num_warmup: int = 300,
        num_draws: int = 400,
        thinning: int = 1,
        step_size: float | Schedule | None = None,
        target_acceptance: float | None = None,
        temperature: float | Schedule = 1.0,
    ) -> None:
        super().__init__()
        can_tune = kernel.target_acceptance is not None
        check_range("num_chains", num_chains, at_least=1, whole=True)
        check_range("num_warmup", num_warmup, at_least=1 if step_size is None and can_tune else 0, whole=True)
        check_range("num_draws", num_draws, at_least=MIN_DRAWS, whole=True)
        check_range("thinning", thinning, at_least=1, whole=True)
        if not isinstance(step_size, Schedule):
            check_range("step_size", step_size, above=0, below=math.inf, or_null=can_tune)
        check_range("target_acceptance", target_acceptance, above=0, below=1, or_null=True)
        if target_acceptance is not None and not can_tune:
            raise ValueError(f"target_acceptance must be null for kernel={kernel.name}: it accepts every step")
        if not isinstance(temperature, Schedule):
            check_range("temperature", temperature, above=0, below=math.inf)
        self.kernel = kernel
        self.target = target
        self.needs, self.needs_model = target.needs, target.needs_model
        self.num_chains = num_chains
        self.num_warmup = num_warmup
        self.num_draws = num_draws
        self.thinning = thinning
        self.step_size = step_size
        self.target_acceptance = target_acceptance
        self.temperature = temperature

    def why_not(self, model: Any) -> str | None:
        """Say why the target does not exist for `model`, or None where it does."""
        return self.target.why_not(model)

    def setup(self, model: Any = None, split: Split | None = None) -> Self:
        """Build the energy of the target."""
        super().setup(model, split)
        self.energy: BaseEnergyFunction = self.target.build(model, split)
        if model is None:
            start = self.energy.start(1)
            self.latent_shape = tuple(start.shape[1:])
            self.register_buffer("like", start.new_empty(0), persistent=False)
        return self

    @torch.no_grad()
    def sample(self, num_samples: int, y: Tensor | None = None, *, progress: ProgressFunction | None = None) -> Draws:
        """Run the chains."""
        y = self.labels(num_samples, y)
        if not hasattr(self, "energy"):
            raise ValueError(f"sampler={self.name} has no energy yet; call setup first")
        num_rounds = math.ceil(num_samples / self.num_chains)
        chains = run_chains(
            self.kernel,
            self.energy,
            self.energy.start(self.num_chains),
            num_draws=max(self.num_draws, num_rounds),
            num_warmup=self.num_warmup,
            thinning=self.thinning,
            step_size=self.step_size,
            temperature=self.temperature,
            target_acceptance=self.target_acceptance,
            progress=progress,
        )
        self.chains = chains
        self.report = diagnose(chains)
        z = spread(chains, num_samples).to(self.like)
        return Draws(z.view(num_samples, *self.latent_shape), y)


def spread(chains: Chains, num_samples: int) -> Tensor:
    """Take states of all chains at equally spaced times, the last one among them, shape (N, D).

    They are as nearly independent as the run allows. Where N is no multiple of the chains, some of the earliest are
    left out.
    """
    num_draws, num_chains, _ = chains.positions.shape
    num_rounds = math.ceil(num_samples / num_chains)
    times = [num_draws - 1 - num_draws * i // num_rounds for i in reversed(range(num_rounds))]
    return chains.positions[times].flatten(0, 1)[-num_samples:]
