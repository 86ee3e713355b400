r"""Riemannian manifold Hamiltonian Monte Carlo: a metric at every point, and an implicit integrator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from vaebench.energies.base import BaseEnergyFunction
from vaebench.mcmc.kernels.hmc import van_der_corput
from vaebench.mcmc.kernels.kernel import Kernel, Report, metropolis
from vaebench.mcmc.riemannian import Given, HasMetric, PositionMetric, SoftAbs, hessian
from vaebench.mcmc.state import Draw, Info, Parameters, State
from vaebench.messages import check_range

MANY_DIMENSIONS = 64  # of a Hessian that takes long
MOST_DIMENSIONS = 1000  # 16 chains then keep 2.5 GiB of matrices, and a transition takes minutes


@dataclass(frozen=True)
class RiemannianHMCKernel(Kernel):
    r"""Riemannian manifold HMC (Girolami & Calderhead, 2011) with the SoftAbs metric (Betancourt, 2013).

    .. math:: H(x, p) = U(x) + \tfrac{T}{2} \log \det G(x) + \tfrac12 p^\top G(x)^{-1} p, \quad p \sim N(0, T G(x))

    The generalised leapfrog step is reversible and preserves volume, but two of its parts are implicit:

    .. math:: p_\frac12 &= p - \tfrac\epsilon2 \nabla_x H(x, p_\frac12) \\
        x' &= x + \tfrac\epsilon2 \big(G(x)^{-1} + G(x')^{-1}\big) p_\frac12 \\
        p' &= p_\frac12 - \tfrac\epsilon2 \nabla_x H(x', p_\frac12)

    Each chain iterates to its own fixed point. It is rejected if it has not converged after `max_iterations`, or if its
    reversed step does not return to the start: an exact kernel needs both checks, which cost about as much again as the
    step.

    The metric replaces the mass matrix, and the one of the warm-up is not used. A Hessian counts as D gradients, and so
    does each force of the SoftAbs metric, which differentiates one; with the energy's own metric they count as one
    each.

    References:
        Riemann manifold Langevin and Hamiltonian Monte Carlo methods (Girolami & Calderhead, 2011),
        https://doi.org/10.1111/j.1467-9868.2010.00765.x; its logistic regressions take 6 leapfrog steps.
        A general metric for Riemannian manifold Hamiltonian Monte Carlo (Betancourt, 2013),
        https://arxiv.org/abs/1212.4693
    Deviations:
        The check that a step reverses, and an acceptance rate to tune for. Lengths are jittered as those of `hmc`.
        alpha = 1 is ours: a larger one follows the Hessian more closely, and turns so sharply where an eigenvalue
        passes through zero that fewer steps can be solved.
    Args:
        metric: `softabs`, of the energy's Hessian, or `target`, which takes the energy's own: target=manifold has one.
        num_leapfrog: Mean number of steps in a trajectory, >= 1.
        jitter: Relative half-width of the range of lengths, in [0, 1]; 0 fixes them.
        alpha: Of SoftAbs: the smallest eigenvalue of the metric is 1 / alpha.
        max_iterations: Fixed-point iterations at most, >= 1.
    """

    target_acceptance: ClassVar[float | None] = 0.8
    has_momentum: ClassVar[bool] = True
    if_slow: ClassVar[str] = "raise sampler.num_draws or num_leapfrog"
    metric: Literal["softabs", "target"] = "softabs"
    num_leapfrog: int = 6
    jitter: float = 0.5
    alpha: float = 1.0
    max_iterations: int = 50

    @property
    def takes_mass_matrix(self) -> bool:
        """It has a metric of its own."""
        return False

    def __post_init__(self) -> None:
        check_range("num_leapfrog", self.num_leapfrog, at_least=1, whole=True)
        check_range("jitter", self.jitter, at_least=0, at_most=1)
        check_range("alpha", self.alpha, above=0, below=float("inf"))
        check_range("max_iterations", self.max_iterations, at_least=1, whole=True)

    def why_not(self, num_dims: int) -> str | None:
        """Say why the Hessians of so many dimensions are out of reach, or None where they are not."""
        if self.metric == "target" or num_dims <= MOST_DIMENSIONS:
            return super().why_not(num_dims)
        return (
            f"takes several Hessians of D x D for each chain in every implicit step, with D at most {MOST_DIMENSIONS}, "
            f"got {num_dims}; nuts and hmc take one gradient in a step"
        )

    def caution(self, num_dims: int) -> str | None:
        """Say what the Hessians of so many dimensions cost."""
        if self.metric == "target" or num_dims <= MANY_DIMENSIONS:
            return None
        return (
            f"takes several Hessians of {num_dims} x {num_dims} in every implicit step, each at the price of "
            f"{num_dims} gradients: that may take hours; sampler=nuts or hmc takes one gradient in a step"
        )

    def length(self, iteration: int) -> int:
        """Leapfrog steps in the transition with this number."""
        return max(1, round(self.num_leapfrog * (1 + self.jitter * (2 * van_der_corput(iteration) - 1))))

    def init(self, position: Tensor, energy: BaseEnergyFunction) -> State:
        """Evaluate the energy at the starting points.

        Raises:
            ValueError: as for every kernel, or if the energy has no metric of its own and was asked for one.
        """
        if self.metric == "target" and not isinstance(energy, HasMetric):
            raise ValueError(
                f"metric=target needs an energy with a metric of its own, as target=manifold has; got "
                f"{type(energy).__name__}; choose metric=softabs"
            )
        return super().init(position, energy)

    @torch.no_grad()
    def step(self, state: State, energy: BaseEnergyFunction, parameters: Parameters, draw: Draw) -> tuple[State, Info]:
        """Draw a momentum, follow a trajectory of implicit steps, accept or reject its end."""
        temperature, scale = parameters.chain_temperature, parameters.temperature**0.5
        noise, log_u = draw.normal(state.position), draw.log_uniform(state.energy)
        work = Work(state.energy)
        begin = place = Place(self, energy, state, work)
        momentum = p = place.metric.momentum(noise) * scale
        for _ in range(self.length(state.iteration)):
            place, p = self.generalised_leapfrog(place, p, parameters)
        start_energy = state.energy + begin.metric.kinetic_energy(momentum, temperature)
        end_energy = place.state.energy + place.metric.kinetic_energy(p, temperature)
        moved, info = metropolis(
            state,
            place.state,
            start_energy,
            end_energy.where(work.is_solved, torch.inf),
            log_u,
            temperature=parameters.temperature,
        )
        counted = Info(
            info.acceptance_probability,
            info.is_accepted,
            info.is_divergent,
            info.energy_change,
            info.total_energy,
            work.num_gradients,
            {"is_unsolved": ~work.is_solved},
        )
        return moved, counted

    def generalised_leapfrog(self, place: Place, p: Tensor, parameters: Parameters) -> tuple[Place, Tensor]:
        """Make one step of every chain whose steps were solved so far, and see whether it was solved and reverses.

        Returns:
            The next place, and its momentum (S, D); where a step was not solved, they mean nothing.
        """
        eps, temperature, work = 0.5 * parameters.step_size, parameters.chain_temperature, place.work
        half = place.half_kick(p, eps, temperature)
        x = place.drift(half, eps)
        there = place.at(torch.where(work.is_solved.unsqueeze(-1), x, place.state.position))
        end = half - eps * (there.state.gradient + there.force(half, temperature))

        half_back = there.half_kick(-end, eps, temperature)
        x_back = there.drift(half_back, eps)
        work.is_solved &= _agree(half_back, -half) & _agree(x_back, place.state.position)
        return there, end

    def report(self, means: Mapping[str, Tensor]) -> Report:
        """Say how often a trajectory had a step that could not be solved."""
        if not means:
            return Report({}, [])
        share = float(means["is_unsolved"].mean())
        sentences = [
            f"{share:.1%} of the trajectories had a step that could not be solved or did not reverse, and were "
            "rejected; lower sampler.step_size or alpha, or raise max_iterations."
        ]
        return Report({"trajectories not solved": share}, sentences if share >= 0.01 else [])


class Work:
    """What S chains have done in a transition.

    Attributes:
        num_gradients: Gradients that each has asked for, int64, shape (S,).
        is_solved: Whether all its steps were solved, and reverse; others do no more work. Shape (S,).
    """

    def __init__(self, like: Tensor) -> None:
        self.num_gradients = torch.zeros_like(like, dtype=torch.int64)
        self.is_solved = torch.ones_like(like, dtype=torch.bool)

    def count(self, num_gradients: int) -> None:
        """Add gradients to every chain that is still at work."""
        self.num_gradients += num_gradients * self.is_solved

    def solve(self, start: Tensor, function: Callable[[Tensor, Tensor], Tensor], most: int, price: int) -> Tensor:
        """Iterate y = f(y) in every chain until its own change is within rounding of it, or `most` times.

        Args:
            start: Shape (S, D).
            function: From values (n, D) of the chains with numbers `rows` (n,) to the next values.
            most: Iterations.
            price: Gradients for each of them.

        Returns:
            The last values, shape (S, D). A chain that did not arrive is not solved.
        """
        tolerance = 1e4 * torch.finfo(start.dtype).eps
        y, has_arrived = start.clone(), torch.zeros_like(self.is_solved)
        rows = self.is_solved.nonzero().squeeze(-1)
        for _ in range(most):
            if not len(rows):
                break
            old = y[rows]
            new = function(old, rows)
            y[rows] = new
            self.num_gradients[rows] += price
            change = (new - old).abs().amax(-1)
            is_close = change <= tolerance * (1 + new.abs().amax(-1))
            has_arrived[rows] = is_close
            rows = rows[~is_close & change.isfinite()]
        self.is_solved &= has_arrived
        return y


class Place:
    """The metric at the positions of S chains, with all that a step begins or ends with.

    Args:
        kernel: Its settings.
        energy: What to draw from.
        state: Positions, energies and gradients.
        work: Where gradients are counted, and chains whose steps cannot be solved.
    """

    def __init__(self, kernel: RiemannianHMCKernel, energy: BaseEnergyFunction, state: State, work: Work) -> None:
        self.kernel, self.energy, self.state, self.work = kernel, energy, state, work
        self.price = state.position.shape[-1] if kernel.metric == "softabs" else 1  # gradients per metric
        work.count(self.price)
        with torch.enable_grad():
            self._x = state.position.detach().requires_grad_(True)
            self._matrix = self._differentiable(self._x, keep=True)
        self.metric = self._metric(self._matrix.detach())

    def at(self, x: Tensor) -> Place:
        """Go to other positions, (S, D)."""
        value, gradient = self.energy.value_and_grad(x)
        self.work.count(1)
        return Place(self.kernel, self.energy, State(x, value, gradient, self.state.iteration), self.work)

    def force(self, momentum: Tensor, temperature: float | Tensor) -> Tensor:
        """Gradient in x of T log det(G) / 2 + p' G^-1 p / 2, shape (S, D)."""
        self.work.count(self.price)
        return self._pull(self.metric.sensitivity(momentum, temperature))

    def half_kick(self, p: Tensor, eps: Tensor, temperature: float | Tensor) -> Tensor:
        """Solve q = p - eps (grad U + force(q)) for q, shape (S, D)."""
        known = p - eps * self.state.gradient

        def right_side(q: Tensor, rows: Tensor) -> Tensor:
            everywhere = p.index_copy(0, rows, q)
            return (known - eps * self._pull(self.metric.sensitivity(everywhere, temperature)))[rows]

        return self.work.solve(p, right_side, self.kernel.max_iterations, self.price)

    def drift(self, p: Tensor, eps: Tensor) -> Tensor:
        """Solve y = x + eps (G(x)^-1 + G(y)^-1) p for y, shape (S, D)."""
        x = self.state.position
        known, size = x + eps * self.metric.velocity(p), eps.expand(len(x), 1)

        def right_side(y: Tensor, rows: Tensor) -> Tensor:
            with torch.enable_grad():
                matrix = self._differentiable(y.detach().requires_grad_(True), keep=False)
            return known[rows] + size[rows] * self._metric(matrix.detach()).velocity(p[rows])

        return self.work.solve(x, right_side, self.kernel.max_iterations, self.price)

    def _differentiable(self, x: Tensor, *, keep: bool) -> Tensor:
        if isinstance(self.energy, HasMetric) and self.kernel.metric == "target":
            return self.energy.inverse_metric(x)
        return hessian(self.energy, x, keep=keep)

    def _metric(self, matrix: Tensor) -> PositionMetric:
        return SoftAbs(matrix, self.kernel.alpha) if self.kernel.metric == "softabs" else Given(matrix)

    def _pull(self, sensitivity: Tensor) -> Tensor:
        """Gradient in x of tr(S A(x)), S held fixed, shape (S, D)."""
        if not self._matrix.requires_grad:
            return torch.zeros_like(self._x)
        with torch.enable_grad():
            total = (sensitivity.detach() * self._matrix).sum()
        (pull,) = torch.autograd.grad(total, self._x, retain_graph=True, allow_unused=True, materialize_grads=True)
        return pull.detach()


def _agree(found: Tensor, expected: Tensor) -> Tensor:
    """Whether a reversed step came back, far more closely than any other solution would, shape (S,)."""
    limit = max(1e-6, 1e5 * torch.finfo(found.dtype).eps)
    return (found - expected).abs().amax(-1) <= limit * (1 + expected.abs().amax(-1))
