r"""Contrastive divergence: the gradient of an energy's likelihood, estimated with Markov chains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from vaebench.core import Loss
from vaebench.energies.base import BaseEnergyFunction
from vaebench.hardware import collective
from vaebench.mcmc.chains import Chains, run_chains
from vaebench.mcmc.kernels.kernel import Kernel
from vaebench.messages import NamedArguments, check_range
from vaebench.schedules import Schedule


class Transition(Protocol):
    """What is read of a sampler with Markov chains: `LangevinDynamics`, `HamiltonianMonteCarlo` and their kin."""

    kernel: Kernel
    step_size: float | Schedule | None
    temperature: float | Schedule


@dataclass(frozen=True)
class NegativePhase:
    """How draws from the model are made: chains of k transitions.

    Args:
        kernel: The transition.
        step_size: Of the kernel, > 0, or its schedule over the k transitions; None where each call of `run` gives one.
        k_steps: Transitions of a chain before its state is used, k >= 1.
        temperature: T > 0 of exp(-U / T), or its schedule.
        new_sample_ratio: Probability that a chain of the buffer begins anew, in [0, 1].
        init_scale: Standard deviation of the Gaussian that chains of the buffer begin in, > 0.
    """

    kernel: Kernel
    step_size: float | Schedule | None
    k_steps: int = 10
    temperature: float | Schedule = 1.0
    new_sample_ratio: float = 0.05
    init_scale: float = 1.0

    def __post_init__(self) -> None:
        check_range("k_steps", self.k_steps, at_least=1, whole=True)
        for name, value in (("step_size", self.step_size), ("temperature", self.temperature)):
            if not isinstance(value, Schedule):
                check_range(name, value, above=0, below=math.inf, or_null=name == "step_size")
        check_range("new_sample_ratio", self.new_sample_ratio, at_least=0, at_most=1)
        check_range("init_scale", self.init_scale, above=0, below=math.inf)

    def run(self, energy: BaseEnergyFunction, start: Tensor, step_size: float | None = None) -> Chains:
        """Move each row of `start` (S, D) by k transitions; no gradient flows through the chain.

        Args:
            energy: What to draw from.
            start: Where the chains begin.
            step_size: Instead of `self.step_size`; then acceptance is reported, too.
        """
        return run_chains(
            self.kernel,
            energy,
            start.detach(),
            num_draws=self.k_steps,
            num_warmup=0,
            step_size=self.step_size if step_size is None else step_size,
            temperature=self.temperature,
            keep=step_size is not None,
        )

    def moved(self, energy: BaseEnergyFunction, start: Tensor) -> Tensor:
        """Where the chains of `run` end, shape (S, D)."""
        return self.run(energy, start).state.position

    def replayed(self, energy: BaseEnergyFunction, chains: Tensor, num: int) -> tuple[Tensor, Tensor]:
        """Take chains out of a buffer and move them; the buffer stays as it is.

        Args:
            energy: What to draw from.
            chains: The buffer, shape (C, D).
            num: How many of them move, for this process; each moves once, C is at least their number over all.

        Returns:
            Their new states, shape (num, D), and their places in the buffer, int64, shape (num,).
        """
        start, slots = self.taken(chains, num)
        return self.moved(energy, start), slots

    def taken(self, chains: Tensor, num: int) -> tuple[Tensor, Tensor]:
        """As `replayed`, before the chains move: states (num, D), of which some are new, and places (num,)."""
        part = collective.current_shard()
        rows = slice(0, num) if part is None else slice(part.start, part.stop)
        slots = collective.permutation(len(chains), chains.device)[rows]
        is_new = collective.uniform((num,), chains) < self.new_sample_ratio
        begun = self.init_scale * collective.standard_normal((num, chains.shape[1]), chains)
        return torch.where(is_new[:, None], begun, chains[slots]), slots


def returned(chains: Tensor, negatives: Tensor, slots: Tensor) -> None:
    """Put moved chains (N, D) back in their places (N,) of the buffer (C, D), those of all processes; in place."""
    chains[collective.gather(slots)] = collective.gather(negatives).to(chains)


def contrast(energy: nn.Module, x: Tensor, negatives: Tensor, energy_reg_weight: float = 0.0) -> Loss:
    r"""Compare the energies of data and of draws from the model.

    .. math:: L = \frac1B \sum_b U(x_b) - \frac1B \sum_b U(\bar x_b) + \alpha \frac1B \sum_b [U(x_b)^2 + U(\bar x_b)^2]

    Where the draws come from exp(-U) itself, the gradient of the first two terms in the weights is that of the mean of
    -log p(x). Draws are constants: no gradient flows through the chain.

    Args:
        energy: U, (B, D) -> (B,).
        x: Data, shape (B, D).
        negatives: Draws, shape (B, D).
        energy_reg_weight: alpha >= 0, which keeps energies near 0.
    """
    of_data, of_model = energy(x), energy(negatives.detach())
    difference = of_data.mean() - of_model.mean()
    penalty = energy_reg_weight * (of_data.square().mean() + of_model.square().mean())
    terms = {"energy_data": of_data.mean(), "energy_model": of_model.mean(), "contrast": difference}
    return Loss(difference + penalty, {name: value.detach() for name, value in terms.items()})


class ContrastiveDivergence(NamedArguments, nn.Module):
    r"""Contrastive divergence with k steps, or with persistent chains, as a loss for a loop of your own.

    Calling it on data returns a loss, whose gradient in the energy's weights estimates that of -log p(x), and the draws
    from the model that it was estimated with:

        loss, negatives = loss_fn(x)

    Chains begin at the data (Hinton, 2002), or, if they persist, where they stopped the last time (Tieleman, 2008): in
    a buffer from which each call takes as many as there are examples, and to whose places they return. A chain of the
    buffer begins anew with probability `new_sample_ratio` (Du & Mordatch, 2019). `state_dict` holds the buffer.

    References:
        Training Products of Experts by Minimizing Contrastive Divergence (Hinton, 2002),
        https://doi.org/10.1162/089976602760128018
        Training Restricted Boltzmann Machines using Approximations to the Likelihood Gradient (Tieleman, 2008),
        https://doi.org/10.1145/1390156.1390290
        Implicit Generation and Modeling with Energy-Based Models (Du & Mordatch, 2019),
        https://arxiv.org/abs/1903.08689
    Args:
        energy_function: The energy that is trained.
        sampler: Gives kernel, step size and temperature; its step size must be set, for so few steps tune nothing.
        k_steps: Transitions before a state is used, >= 1.
        persistent: Whether chains persist.
        buffer_size: Persistent chains, at least as many as there are examples in a call.
        new_sample_ratio: Probability that a persistent chain begins anew, in [0, 1].
        energy_reg_weight: Weight alpha of the squared energies, >= 0.
        init_scale: Standard deviation of the Gaussian that persistent chains begin in, > 0.
    """

    chains: Tensor

    def __init__(
        self,
        energy_function: BaseEnergyFunction,
        sampler: Transition,
        k_steps: int = 10,
        persistent: bool = False,
        buffer_size: int = 10_000,
        new_sample_ratio: float = 0.05,
        energy_reg_weight: float = 0.001,
        init_scale: float = 1.0,
    ) -> None:
        super().__init__()
        check_range("buffer_size", buffer_size, at_least=1, whole=True)
        check_range("energy_reg_weight", energy_reg_weight, at_least=0, below=math.inf)
        if not isinstance(energy_function, BaseEnergyFunction):
            raise ValueError(
                f"expected an energy derived from BaseEnergyFunction, got a {type(energy_function).__name__}"
            )
        if sampler.step_size is None:
            raise ValueError("sampler must have a step_size: chains of a few transitions cannot tune one")
        self.energy_function = energy_function
        self.phase = NegativePhase(
            sampler.kernel, sampler.step_size, k_steps, sampler.temperature, new_sample_ratio, init_scale
        )
        self.persistent, self.buffer_size, self.energy_reg_weight = persistent, buffer_size, energy_reg_weight
        self.register_buffer("chains", torch.empty(0, energy_function.num_dims or 0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss, a scalar, and the draws from the model, shape (B, D).

        Args:
            x: Data, shape (B, D).

        Raises:
            ValueError: if x has another shape, or persistent chains are fewer than examples.
        """
        if x.ndim != 2 or not len(x):
            raise ValueError(f"expected data of shape (B, D) with B >= 1, got {tuple(x.shape)}")
        if not self.persistent:
            negatives = self.phase.moved(self.energy_function, x)
        else:
            check_range("buffer_size", self.buffer_size, at_least=len(x))  # one chain per example
            if not len(self.chains):
                self.chains = self.phase.init_scale * torch.randn(self.buffer_size, x.shape[1]).to(x)
            negatives, slots = self.phase.replayed(self.energy_function, self.chains, len(x))
            returned(self.chains, negatives, slots)
        return contrast(self.energy_function, x, negatives, self.energy_reg_weight).total, negatives

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: object) -> None:
        """Take a buffer of any size."""
        found = state_dict.get(f"{prefix}chains")
        if found is not None:
            self.chains = self.chains.new_empty(found.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)
