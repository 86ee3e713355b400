"""The base of the samplers that run Markov chains: settings, starts, and the two ways to call `sample`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypedDict, get_args, overload

import torch
from torch import Tensor
from typing_extensions import Self

from vaebench.core import Draws, ProgressFunction, Split
from vaebench.energies.base import BaseEnergyFunction
from vaebench.energies.target import Target
from vaebench.hardware import collective
from vaebench.mcmc.chains import Chains, run_chains
from vaebench.mcmc.diagnostics import diagnose
from vaebench.mcmc.ess import MIN_DRAWS
from vaebench.mcmc.kernels.kernel import Kernel
from vaebench.mcmc.unfinished import Unfinished
from vaebench.mcmc.whitening import MassMatrix
from vaebench.messages import check_range
from vaebench.samplers.base import BaseSampler
from vaebench.schedules import Schedule

MOST_BYTES = 2 * 2**30  # of all draws
MOST_DENSE = 5000  # dimensions of a dense mass matrix: 100 MB, decomposed in every window of the warm-up
Diagnosed = tuple[Tensor, Mapping[str, Tensor]]


class ChainSettings(TypedDict, total=False):
    """What a sampler with chains hands on to `MarkovChainSampler`."""

    num_chains: int
    num_warmup: int
    num_draws: int
    thinning: int
    step_size: float | Schedule | None
    target_acceptance: float | None
    temperature: float | Schedule
    mass_matrix: MassMatrix
    device: torch.device | str | None
    dtype: torch.dtype | None


class MarkovChainSampler(BaseSampler):
    """Markov chains with a kernel on a target.

    All chains run at once. A warm-up tunes for all of them together and then freezes; with a step size of your own
    nothing is tuned and the mass matrix is the identity.

    Args:
        kernel: The transition.
        target: What to draw from: an energy, or a target that builds one from a trained model.
        num_chains: Chains, S, >= 1; R-hat asks for at least 4. Where modes are so far apart that no chain crosses
            between them, S bounds how many of them are seen.
        num_warmup: Transitions before the first draw, >= 0.
        num_draws: Draws that every chain keeps at least, >= 4.
        thinning: Transitions per draw, >= 1.
        step_size: Of the kernel, or its schedule; null tunes it, where the kernel can be tuned.
        target_acceptance: What to tune for, in (0, 1); null is the kernel's own.
        temperature: T > 0 of exp(-U / T), or its schedule; 1 is the target itself.
        mass_matrix: What a warm-up learns beside the step size: "diagonal", "dense" or "low_rank" (at most sixteen
            directions); kernels with a warm-up of their own take none but the first.
        compile: Whether the transitions after warm-up are compiled; see `CompiledStep`. Only some kernels can be.
        device: Where chains on an energy run; None leaves the energy where it is.
        dtype: Their type; None is the energy's, or torch's default.

    Attributes:
        unfinished: Where `sample(num_samples)` keeps what is done, and goes on from; None keeps nothing.
    """

    def __init__(
        self,
        kernel: Kernel,
        target: Target,
        /,
        *,
        num_chains: int = 64,
        num_warmup: int = 300,
        num_draws: int = 400,
        thinning: int = 1,
        step_size: float | Schedule | None = None,
        target_acceptance: float | None = None,
        temperature: float | Schedule = 1.0,
        mass_matrix: MassMatrix = "diagonal",
        compile: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not isinstance(target, Target):
            raise ValueError(f"expected an energy derived from BaseEnergyFunction, got a {type(target).__name__}")
        super().__init__(target if isinstance(target, BaseEnergyFunction) else None, device=device, dtype=dtype)
        can_tune = kernel.can_be_tuned
        check_range("num_chains", num_chains, at_least=1, whole=True)
        check_range("num_warmup", num_warmup, at_least=1 if step_size is None and can_tune else 0, whole=True)
        check_range("num_draws", num_draws, at_least=MIN_DRAWS, whole=True)
        check_range("thinning", thinning, at_least=1, whole=True)
        if step_size is None and not can_tune:
            raise ValueError(
                f"step_size must be above 0 for kernel={kernel.name}, which has no acceptance rate to tune it for; got "
                "null; set step_size"
            )
        if not isinstance(step_size, Schedule):
            check_range("step_size", step_size, above=0, below=math.inf, or_null=True)
        check_range("target_acceptance", target_acceptance, above=0, below=1, or_null=True)
        if target_acceptance is not None and kernel.target_acceptance is None:
            reason = "is not tuned by it" if can_tune else "accepts every step"
            raise ValueError(f"target_acceptance must be null for kernel={kernel.name}, which {reason}")
        if not isinstance(temperature, Schedule):
            check_range("temperature", temperature, above=0, below=math.inf)
        if mass_matrix not in get_args(MassMatrix):
            raise ValueError(f"mass_matrix must be one of {', '.join(get_args(MassMatrix))}; got {mass_matrix}")
        if mass_matrix != "diagonal" and not (step_size is None and kernel.takes_mass_matrix):
            reason = "has scales of its own" if step_size is None else "learns none where step_size is given"
            raise ValueError(
                f"mass_matrix must be diagonal for kernel={kernel.name}, which {reason}; got {mass_matrix}"
            )
        self.kernel = kernel
        self.target = target
        self.needs, self.excludes, self.needs_model = target.needs, target.excludes, target.needs_model
        self.num_chains = num_chains
        self.num_warmup = num_warmup
        self.num_draws = num_draws
        self.thinning = thinning
        self.step_size = step_size
        self.target_acceptance = target_acceptance
        self.temperature = temperature
        self.mass_matrix = mass_matrix
        self.is_compiled = compile
        self.unfinished: Unfinished | None = None
        self.energy: BaseEnergyFunction | None = None

    def why_not(self, model: Any) -> str | None:
        """Say why the target does not exist for `model` or the kernel does not move there, or None where both do."""
        return self.target.why_not(model) or super().why_not(model)

    def too_large(self, num_dims: int) -> str | None:
        """Say why the kernel does not move in so many dimensions, or what memory the mass matrix or the draws take."""
        if (clause := self.kernel.why_not(num_dims)) is not None:
            return f"it {clause}"
        if self.mass_matrix == "dense" and num_dims > MOST_DENSE:
            return (
                f"it learns a mass matrix of {num_dims} x {num_dims}, more than {MOST_DENSE}; set "
                "sampler.mass_matrix=diagonal"
            )
        num_bytes = 4 * self.num_draws * self.num_chains * num_dims
        if num_bytes <= MOST_BYTES:
            return None
        return (
            f"it keeps {self.num_draws} draws of {self.num_chains} chains, {num_dims} numbers each, "
            f"{num_bytes / 2**30:.1f} GiB, more than {MOST_BYTES / 2**30:g}; lower sampler.num_draws or num_chains"
        )

    def too_slow(self, num_dims: int) -> str | None:
        """Say why the kernel takes long in so many dimensions."""
        return self.kernel.caution(num_dims)

    def setup(self, model: Any = None, split: Split | None = None) -> Self:
        """Build the energy of the target; an energy of its own needs no setup."""
        super().setup(model, split)
        self.energy = self.target.build(model, split)
        return self

    @overload
    def sample(
        self, num_samples: int, y: Tensor | None = None, *, progress: ProgressFunction | None = None
    ) -> Draws: ...

    @overload
    def sample(
        self,
        num_samples: None = None,
        y: None = None,
        *,
        x: Tensor | None = None,
        dim: int | None = None,
        n_steps: int = 100,
        n_samples: int = 1,
        thin: int = 1,
        return_trajectory: bool = False,
        return_diagnostics: bool = False,
        generator: torch.Generator | None = None,
        progress: ProgressFunction | None = None,
    ) -> Any: ...

    @torch.no_grad()
    def sample(
        self,
        num_samples: int | None = None,
        y: Tensor | None = None,
        *,
        x: Tensor | None = None,
        dim: int | None = None,
        n_steps: int = 100,
        n_samples: int = 1,
        thin: int = 1,
        return_trajectory: bool = False,
        return_diagnostics: bool = False,
        generator: torch.Generator | None = None,
        progress: ProgressFunction | None = None,
    ) -> Any:
        """Draw from the target.

        With `num_samples`, S chains start where the target says and keep `num_draws` draws each, or num_samples / S
        where that is more; diagnostics are computed over all of them, and the samples are taken at equal distances.

        Without it, one chain starts in each row of `x` and its last state is returned: the call for energy-based
        models. The step size is the sampler's; where it is null, a warm-up of `num_warmup` transitions tunes it first.

        Args:
            num_samples: N, >= 1.
            y: Labels, shape (N,), of a model that has them.
            x: Starting points, shape (n_samples, dim); by default drawn from N(0, I).
            dim: Dimensions, where `x` is not given and the energy does not say.
            n_steps: Transitions.
            n_samples: Chains, where `x` is not given.
            thin: Transitions per state of the trajectory.
            return_trajectory: Whether to return the states along the way instead of the last one.
            return_diagnostics: Whether to return what happened, too.
            generator: Source of randomness; None is torch's global one.
            progress: Called after every transition.

        Returns:
            With `num_samples`, draws: z of shape (N, *latent_shape), and labels. Without, states of shape
            (n_samples, dim), or a trajectory of shape (n_samples, n_steps // thin, dim); and, where they are asked for,
            diagnostics: energy, acceptance_probability and is_divergent, each of shape (n_steps // thin, n_samples),
            and num_gradients of shape (n_samples,).
        """
        if num_samples is not None:
            return self._draw(num_samples, y, progress)
        check_range("n_steps", n_steps, at_least=1, whole=True)
        check_range("thin", thin, at_least=1, at_most=n_steps, whole=True)
        energy = self._energy()
        if x is None:
            check_range("n_samples", n_samples, at_least=1, whole=True)
            num_dims = dim or energy.num_dims or 10
            x = collective.standard_normal((n_samples, num_dims), self.like, generator=generator)
        elif dim is not None and x.shape[-1] != dim:
            raise ValueError(f"expected x of {dim} dimensions, as dim says, got {x.shape[-1]}")
        chains = self._run(
            x.detach().to(self.like),
            num_draws=n_steps // thin,
            num_warmup=self.num_warmup if self.step_size is None else 0,
            thinning=thin,
            keep=return_trajectory or return_diagnostics,
            generator=generator,
            progress=progress,
        )
        result = chains.positions.transpose(0, 1) if return_trajectory else chains.state.position
        if not return_diagnostics:
            return result
        return result, {
            "energy": self._energy_along(chains),
            "acceptance_probability": chains.acceptance_probability[thin - 1 :: thin],
            "is_divergent": chains.is_divergent[thin - 1 :: thin],
            "num_gradients": chains.num_gradients,
        }

    def _energy(self) -> BaseEnergyFunction:
        if self.energy is None and isinstance(self.target, BaseEnergyFunction):
            self.energy = self.target
        if self.energy is None:
            raise ValueError(f"sampler={self.name} has no energy yet; call setup with a trained model first")
        return self.energy

    def _energy_along(self, chains: Chains) -> Tensor:
        return torch.stack([self._energy().energy(x) for x in chains.positions])

    def _draw(self, num_samples: int, y: Tensor | None, progress: ProgressFunction | None) -> Draws:
        y = self.labels(num_samples, y)
        start = self._energy().start(self.num_chains)
        start = start.to(self.like) if isinstance(self.target, BaseEnergyFunction) else start
        self.chains = self._run(
            start,
            num_draws=max(self.num_draws, math.ceil(num_samples / self.num_chains)),
            num_warmup=self.num_warmup,
            thinning=self.thinning,
            progress=progress,
            unfinished=self.unfinished,
        )
        self.report = diagnose(self.chains)
        z = spread(self.chains, num_samples).to(self.like)
        return Draws(z.view(num_samples, *(self.latent_shape or z.shape[1:])), y)

    def _run(self, start: Tensor, **settings: Any) -> Chains:
        return run_chains(
            self.kernel,
            self._energy(),
            start,
            step_size=self.step_size,
            temperature=self.temperature,
            target_acceptance=self.target_acceptance,
            mass_matrix=self.mass_matrix,
            compile=self.is_compiled,
            **settings,
        )


def spread(chains: Chains, num_samples: int) -> Tensor:
    """Take states of all chains at equally spaced times, the last one among them, shape (N, D).

    They are as nearly independent as the run allows. If N is not a multiple of the chains, some of the earliest are
    left out.
    """
    num_draws, num_chains, _ = chains.positions.shape
    num_rounds = math.ceil(num_samples / num_chains)
    times = [num_draws - 1 - num_draws * i // num_rounds for i in reversed(range(num_rounds))]
    return chains.positions[times].flatten(0, 1)[-num_samples:]
