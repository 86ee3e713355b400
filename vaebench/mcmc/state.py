"""The state of Markov chains, the settings of a transition, the report on one, and its random numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor

from vaebench.hardware import collective
from vaebench.mcmc.whitening import Whitening

FEW_DIMS = 16


@dataclass(frozen=True)
class State:
    """Where S chains are. The energy and its gradient travel along, so that nothing is computed twice.

    Attributes:
        position: Shape (S, D).
        energy: U at the position, nats, shape (S,).
        gradient: Gradient of U, shape (S, D).
        iteration: Transitions made so far, the same for all chains.
    """

    position: Tensor
    energy: Tensor
    gradient: Tensor
    iteration: int = 0


@dataclass(frozen=True)
class Parameters:
    """Settings that adaptation tunes and schedules change.

    Attributes:
        step_size: Scalar, or shape (S, 1) for one per chain.
        inverse_mass_matrix: Diagonal of M^-1, shape (D,), or (S, D) for one per chain; about the target's variances.
        temperature: T: the kernel leaves exp(-U / T) invariant. It scales the noise and not the gradient, so a step
            size means the same at every T. A number, or shape (S, 1) for one per chain.
        length: Time of a trajectory at most, or time after which a momentum is forgotten, in the units of the step
            size, of its shape; None leaves it to the kernel.
        whitening: The linear map to the coordinates in which chains run, where they do not run in their own; a kernel
            sees nothing of it.
    """

    step_size: Tensor
    inverse_mass_matrix: Tensor
    temperature: float | Tensor = 1.0
    length: Tensor | None = None
    whitening: Whitening | None = None

    @property
    def chain_temperature(self) -> float | Tensor:
        """T as it divides one value per chain: a number, or shape (S,)."""
        return of_chains(self.temperature)

    @cached_property
    def num_steps(self) -> float:
        """Steps of a trajectory of that length, read by the host once for all transitions with these parameters."""
        assert self.length is not None
        return float(self.length / self.step_size)


@dataclass(frozen=True)
class Info:
    """Report on one transition, per chain, each of shape (S,).

    Attributes:
        acceptance_probability: min(1, exp(-energy_change)), and 0 where that is not a number.
        is_accepted: Whether the chain moved to the proposal.
        is_divergent: Whether the energy error was not finite, or above 1000 nats.
        energy_change: (H(proposal) - H(start)) / T, nats; may be inf or nan.
        total_energy: H of the state that was kept, nats: the series of E-BFMI.
        num_gradients: Gradient evaluations, int64.
        statistics: What else the kernel counts, by name, of shape (S, ...); `Kernel.report` gets the means.
    """

    acceptance_probability: Tensor
    is_accepted: Tensor
    is_divergent: Tensor
    energy_change: Tensor
    total_energy: Tensor
    num_gradients: Tensor
    statistics: Mapping[str, Tensor] = field(default_factory=dict)


class Draw:
    """The random numbers of a kernel; N processes that share the chains draw what one would.

    Args:
        generator: None is torch's global one. Must live on the chains' device.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator

    def mark(self, like: Tensor) -> Callable[[], object]:
        """Return what brings the generator for the device of `like` back to where it is now."""
        if self.generator is not None:
            return partial(self.generator.set_state, self.generator.get_state())
        if like.is_cuda:
            return partial(torch.cuda.set_rng_state, torch.cuda.get_rng_state(like.device), like.device)
        if like.device.type == "mps":
            return partial(torch.mps.set_rng_state, torch.mps.get_rng_state())
        return partial(torch.set_rng_state, torch.get_rng_state())

    def normal(self, like: Tensor) -> Tensor:
        """Draw from N(0, 1), with the shape, layout, dtype and device of `like`, chains first."""
        if is_by_dimension(like):
            shape = (like.shape[1], like.shape[0])
            return collective.standard_normal(shape, like, dim=1, generator=self.generator).T
        return collective.standard_normal(tuple(like.shape), like, generator=self.generator)

    def uniform(self, like: Tensor) -> Tensor:
        """Draw from U[0, 1), with the shape, dtype and device of `like`, chains first."""
        return collective.uniform(tuple(like.shape), like, generator=self.generator)

    def log_uniform(self, like: Tensor) -> Tensor:
        """Draw the logarithm of a number in (0, 1], with the shape, dtype and device of `like`, chains first."""
        return torch.log1p(-self.uniform(like))


def of_chains(temperature: float | Tensor) -> float | Tensor:
    """Bring a temperature of shape (S, 1) to (S,); a number stays."""
    return temperature.squeeze(-1) if isinstance(temperature, Tensor) else temperature


def dimensions_first(x: Tensor) -> Tensor:
    """Lay positions (S, D) of few dimensions out by dimension: sums over D and scales of shape (D,) are then fast."""
    return x.T.contiguous().T if 1 < x.shape[1] <= FEW_DIMS and len(x) > x.shape[1] else x


def is_by_dimension(x: Tensor) -> bool:
    """Whether a tensor is laid out as `dimensions_first` does it."""
    return x.ndim == 2 and x.stride(0) == 1 < x.stride(1)
