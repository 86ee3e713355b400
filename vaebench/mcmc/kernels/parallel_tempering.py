r"""Parallel tempering: replicas at higher temperatures carry chains from mode to mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from vaebench.energies.base import BaseEnergyFunction
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.mcmc.kernels.kernel import Kernel, Report
from vaebench.mcmc.state import Draw, Info, Parameters, State
from vaebench.messages import check_range


@dataclass(frozen=True)
class TemperedState(State):
    """A state of the coldest replicas, with all replicas beside it.

    Attributes:
        replicas: Those of every chain one after the other, from cold to hot: S * R rows.
        was_hottest: Whether a replica was at the highest temperature since it was last at the lowest, shape (S, R).
    """

    replicas: State = field(kw_only=True)
    was_hottest: Tensor = field(kw_only=True)


@dataclass(frozen=True)
class ParallelTemperingKernel(Kernel):
    r"""Replica exchange with deterministic even-odd swaps (Swendsen & Wang, 1986; Geyer, 1991; Syed et al., 2022).

    Every chain has R replicas, at temperatures :math:`T_1 = 1 < \dots < T_R`, spaced geometrically. A transition moves
    each of them with the inner kernel on :math:`e^{-U / T_r}`, and then swaps neighbours with probability

    .. math:: \min\Big(1, e^{(1 / T_r - 1 / T_{r+1}) (U(x_r) - U(x_{r+1}))}\Big),

    the pairs (1, 2), (3, 4), … in every other transition and (2, 3), (4, 5), … in those between. This is not
    reversible, and lets replicas travel faster. The chain is the replica at T_1; the others are discarded. Replicas are
    a batch dimension: one call of the energy serves all of them. A gradient of any replica counts as one of its
    chain's, and divergences are those at T_1.

    All replicas use one step size. With the inner kernel's noise scaled by the square root of the temperature it suits
    a Gaussian at every temperature alike; the acceptance rate that warm-up tunes is the mean over replicas.

    References:
        Replica Monte Carlo simulation of spin-glasses (Swendsen & Wang, 1986),
        https://doi.org/10.1103/PhysRevLett.57.2607
        Non-reversible parallel tempering: a scalable highly parallel MCMC scheme (Syed et al., 2022),
        https://arxiv.org/abs/1905.02939
    Deviations:
        The ladder is geometric and stays as it is; Syed et al. tune it until all pairs swap equally often.
    Args:
        inner: What moves the replicas.
        num_temperatures: R, >= 2.
        max_temperature: T_R, > 1: high enough for the inner kernel to pass every barrier, whose height is divided by
            it.
    """

    states: ClassVar[tuple[type[State], ...]] = (TemperedState, State)
    is_metropolised: ClassVar[bool] = False
    is_reversible: ClassVar[bool] = False
    inner: Kernel = HMCKernel()  # noqa: RUF009 - a frozen description
    num_temperatures: int = 8
    max_temperature: float = 50.0

    def __post_init__(self) -> None:
        check_range("num_temperatures", self.num_temperatures, at_least=2, whole=True)
        check_range("max_temperature", self.max_temperature, above=1, below=float("inf"))
        if isinstance(self.inner, ParallelTemperingKernel):
            raise ValueError("inner must be a kernel that moves one replica; got parallel_tempering itself")

    @property
    def target_acceptance(self) -> float | None:  # type: ignore[override]
        """That of the inner kernel."""
        return self.inner.target_acceptance

    @property
    def is_exact(self) -> bool:  # type: ignore[override]
        """Whether the inner kernel is."""
        return self.inner.is_exact

    @property
    def uses_gradients(self) -> bool:  # type: ignore[override]
        """Whether the inner kernel does."""
        return self.inner.uses_gradients

    @property
    def chains_are_apart(self) -> bool:  # type: ignore[override]
        """Whether the inner kernel keeps them apart."""
        return self.inner.chains_are_apart

    @property
    def caveat(self) -> str | None:  # type: ignore[override]
        """That of the inner kernel."""
        return self.inner.caveat

    def why_not(self, num_dims: int) -> str | None:
        """Say why the inner kernel does not move in so many dimensions, or None where it does."""
        return self.inner.why_not(num_dims)

    def caution(self, num_dims: int) -> str | None:
        """Say what makes the inner kernel slow in so many dimensions, or None."""
        return self.inner.caution(num_dims)

    def temperatures(self, like: Tensor) -> Tensor:
        """T_r, shape (R,), with the dtype and device of `like`."""
        steps = torch.linspace(0, 1, self.num_temperatures, dtype=like.dtype, device=like.device)
        return self.max_temperature**steps

    def init(self, position: Tensor, energy: BaseEnergyFunction) -> TemperedState:
        """Start all replicas of a chain at its starting point."""
        start, count = self.inner.init(position, energy), self.num_temperatures
        values: dict[str, Any] = {part.name: getattr(start, part.name) for part in fields(start)}
        rows: dict[str, Any] = {
            name: v.repeat_interleave(count, 0) if isinstance(v, Tensor) else v for name, v in values.items()
        }
        was_hottest = torch.zeros(len(position), count, dtype=torch.bool, device=position.device)
        replicas = replace(start, **rows)
        return TemperedState(start.position, start.energy, start.gradient, replicas=replicas, was_hottest=was_hottest)

    @torch.no_grad()
    def step(self, state: State, energy: BaseEnergyFunction, parameters: Parameters, draw: Draw) -> tuple[State, Info]:
        """Move every replica, then swap neighbours."""
        assert isinstance(state, TemperedState)
        num_chains, count = len(state.energy), self.num_temperatures
        temperatures = self.temperatures(state.energy)
        ladder = temperatures * torch.as_tensor(parameters.temperature).to(temperatures)  # (R,), or (S, R)
        rows = Parameters(
            _of_replicas(parameters.step_size, count),
            _of_replicas(parameters.inverse_mass_matrix, count),
            ladder.expand(num_chains, count).reshape(-1, 1),
        )
        moved, info = self.inner.step(state.replicas, energy, rows, ReplicaDraw(draw, count))
        log_u = draw.log_uniform(state.energy.new_empty(num_chains, count - 1))
        replicas, order, swaps = swap(moved, ladder, log_u, first=state.iteration % 2)
        was_hottest = state.was_hottest.gather(1, order)
        made_round_trip = was_hottest[:, 0].clone()
        was_hottest[:, 0], was_hottest[:, -1] = False, True
        position, value, gradient = (v[::count] for v in (replicas.position, replicas.energy, replicas.gradient))
        cold = TemperedState(position, value, gradient, state.iteration + 1, replicas=replicas, was_hottest=was_hottest)
        per_chain = {name: getattr(info, name).view(num_chains, count) for name in COUNTED}
        report = Info(
            acceptance_probability=per_chain["acceptance_probability"].mean(-1),
            is_accepted=per_chain["is_accepted"][:, 0] | (order[:, 0] != 0),
            is_divergent=per_chain["is_divergent"][:, 0],
            energy_change=(cold.energy - state.energy) / parameters.chain_temperature,
            total_energy=cold.energy,
            num_gradients=per_chain["num_gradients"].sum(-1),
            statistics={**swaps, "round_trips": made_round_trip.long()},
        )
        return cold, report

    def report(self, means: Mapping[str, Tensor]) -> Report:
        """Say how often neighbours swap, and how often replicas travel from cold to hot and back."""
        if not means:
            return Report({}, [])
        rates = means["swap_probability"].mean(0) / means["is_swap_tried"].mean(0).clamp(min=1e-300)
        trips = float(means["round_trips"].mean())
        least = int(rates.argmin())
        sentences = []
        if rates[least] < MIN_SWAP_RATE:
            ladder = self.temperatures(rates)
            sentences.append(
                f"Replicas at temperatures {ladder[least]:.3g} and {ladder[least + 1]:.3g} swap in only "
                f"{rates[least]:.1%} of the attempts: the ladder is too coarse; raise num_temperatures."
            )
        if trips == 0:
            sentences.append(
                "No replica travelled from the highest temperature to the lowest after it had been there: the chains "
                "got no help from the replicas; raise num_temperatures or sampler.num_draws."
            )
        values = {
            "swap rate (mean)": float(rates.mean()),
            "swap rate (least)": float(rates[least]),
            "communication barrier": float((1 - rates).sum()),
            "round trips per 1000 transitions": 1000 * trips,
        }
        return Report(values, sentences)


COUNTED = ("acceptance_probability", "is_accepted", "is_divergent", "num_gradients")
MIN_SWAP_RATE = 0.1


class ReplicaDraw(Draw):
    """The random numbers of S * R replicas, drawn chains first, so that N processes draw what one would.

    Args:
        draw: The source.
        num_replicas: R.
    """

    def __init__(self, draw: Draw, num_replicas: int) -> None:
        super().__init__(draw.generator)
        self._draw, self._num_replicas = draw, num_replicas

    def normal(self, like: Tensor) -> Tensor:
        """Draw from N(0, 1), with the shape, dtype and device of `like`, whose rows are replicas."""
        return self._draw.normal(like.unflatten(0, (-1, self._num_replicas))).flatten(0, 1)

    def uniform(self, like: Tensor) -> Tensor:
        """Draw from U[0, 1), with the shape, dtype and device of `like`, whose rows are replicas."""
        return self._draw.uniform(like.unflatten(0, (-1, self._num_replicas))).flatten(0, 1)


def swap(replicas: State, temperatures: Tensor, log_u: Tensor, first: int) -> tuple[State, Tensor, dict[str, Tensor]]:
    """Exchange positions between neighbouring temperatures.

    Args:
        replicas: S * R rows, those of a chain one after the other.
        temperatures: Shape (R,), or (S, R).
        log_u: Logarithms of uniform draws, one for each pair of neighbours, shape (S, R - 1).
        first: 0 tries the pairs (0, 1), (2, 3), …; 1 the pairs (1, 2), (3, 4), ….

    Returns:
        The replicas; where each came from, shape (S, R); and the statistics `swap_probability`, 0 for a pair that was
        not tried, and `is_swap_tried`, each of shape (S, R - 1).
    """
    num_chains, num_pairs = log_u.shape
    energy = replicas.energy.view(num_chains, num_pairs + 1)
    beta = 1 / temperatures
    log_ratio = (beta[..., :-1] - beta[..., 1:]) * (energy[:, :-1] - energy[:, 1:])
    is_tried = torch.arange(num_pairs, device=energy.device) % 2 == first
    is_swapped = is_tried & (log_u <= log_ratio)
    order = torch.arange(num_pairs + 1, device=energy.device).repeat(num_chains, 1)
    order[:, :-1] += is_swapped.long()
    order[:, 1:] -= is_swapped.long()
    source = (order + torch.arange(num_chains, device=order.device).unsqueeze(-1) * (num_pairs + 1)).flatten()
    swapped = replace(
        replicas,
        position=replicas.position[source],
        energy=replicas.energy[source],
        gradient=replicas.gradient[source],
    )
    probability = torch.exp(log_ratio.clamp(max=0)).where(is_tried, 0.0)
    return swapped, order, {"swap_probability": probability, "is_swap_tried": is_tried.expand_as(probability)}


def _of_replicas(value: Tensor, num_replicas: int) -> Tensor:
    """Repeat what is given per chain, shape (S, …) of two dimensions, for its replicas; what all chains share stays."""
    return value.repeat_interleave(num_replicas, 0) if value.ndim == 2 else value
