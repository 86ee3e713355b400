r"""The No-U-Turn Sampler: multinomial, iterative, batched over chains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from vaebench.energies.base import BaseEnergyFunction
from vaebench.mcmc.kernels.hmc import kinetic_energy
from vaebench.mcmc.kernels.kernel import MAX_ENERGY_CHANGE, Kernel, Report
from vaebench.mcmc.state import Draw, Info, Parameters, State
from vaebench.messages import check_range


@dataclass(frozen=True)
class NUTSKernel(Kernel):
    r"""The No-U-Turn Sampler with multinomial weights (Hoffman & Gelman, 2014; Betancourt, 2017).

    A trajectory doubles in random directions until it turns back on itself: until

    .. math:: p_-^\top M^{-1} \rho \le 0 \quad \text{or} \quad p_+^\top M^{-1} \rho \le 0, \quad \rho = \sum_i p_i

    for the whole trajectory or for any of its subtrees, and across the border between two of them, with the momentum
    next to the border added to the sum of the other side. Its states weigh :math:`e^{-H / T}`. Inside a subtree one is
    drawn by weight; between the old trajectory and a new subtree the new one is taken with probability :math:`\min(1,
    w_\text{new} / w_\text{old})`. A subtree that turns or diverges is discarded and ends the transition. The acceptance
    probability is the mean of :math:`\min(1, e^{-\Delta H / T})` over all states visited.

    Chains are a batch: in a doubling all of them step together, and those that have finished sit out the next one, so
    that a transition takes as long as its longest trajectory. Subtrees are built iteratively, with one stored momentum
    for each level. All random numbers are drawn at the start, as many for a short trajectory as for a long one, so that
    no chain's numbers depend on another's trajectory.

    References:
        The No-U-Turn Sampler (Hoffman & Gelman, 2014), https://arxiv.org/abs/1111.4246
        A conceptual introduction to Hamiltonian Monte Carlo (Betancourt, 2017), https://arxiv.org/abs/1701.02434, for
        the weights and the criterion; its additional checks are those of Stan since version 2.21,
        https://mc-stan.org/docs/reference-manual/mcmc.html, whose max_depth and target acceptance are the defaults.
        Composable effects for flexible and accelerated probabilistic programming in NumPyro (Phan et al., 2019),
        https://arxiv.org/abs/1912.11554, for the iterative form.
    Args:
        max_depth: Doublings of a trajectory at most, >= 1: 2^max_depth - 1 gradients.
    """

    target_acceptance: ClassVar[float | None] = 0.8
    is_metropolised: ClassVar[bool] = False
    has_momentum: ClassVar[bool] = True
    if_slow: ClassVar[str] = (
        "raise sampler.num_draws, or choose sampler=riemannian_hmc where scales differ from place to place"
    )
    max_depth: int = 10

    def __post_init__(self) -> None:
        check_range("max_depth", self.max_depth, at_least=1, at_most=20, whole=True)

    @torch.no_grad()
    def step(self, state: State, energy: BaseEnergyFunction, parameters: Parameters, draw: Draw) -> tuple[State, Info]:
        """Draw a momentum, double the trajectory until it turns, and take one of its states."""
        noise = draw.normal(state.position)
        uniforms = draw.uniform(state.energy.new_empty(len(noise), self.max_depth, 3))
        tree = start_tree(state, noise, parameters)
        for depth in range(self.max_depth):
            rows = tree.is_growing.nonzero().squeeze(-1)
            if not len(rows):
                break
            part = Tree(*(value[rows] for value in tree))
            part = double(part, energy, _rows(parameters, rows), 2**depth, uniforms[rows, depth])
            tree = Tree(*(whole.index_copy(0, rows, new) for whole, new in zip(tree, part, strict=True)))
        moved = State(tree.position, tree.energy, tree.gradient, state.iteration + 1)
        info = Info(
            acceptance_probability=tree.acceptance / tree.num_gradients,
            is_accepted=tree.is_accepted,
            is_divergent=tree.is_divergent,
            energy_change=(tree.total_energy - tree.start_energy) / parameters.chain_temperature,
            total_energy=tree.total_energy,
            num_gradients=tree.num_gradients,
            statistics={"depth": tree.depth, "is_saturated": tree.is_growing},
        )
        return moved, info

    def report(self, means: Mapping[str, Tensor]) -> Report:
        """Say how deep the trees were, and whether they were cut off."""
        if not means:
            return Report({}, [])
        share = float(means["is_saturated"].mean())
        sentences = [
            f"{share:.1%} of the trajectories were cut off at {2**self.max_depth - 1} steps before they turned, which "
            "is right but slow: the target has very different scales; raise max_depth or sampler.num_draws"
            + ", or draw from a target with other coordinates."
        ]
        values = {"tree depth (mean)": float(means["depth"].mean()), "trees cut off": share}
        return Report(values, sentences if share >= 0.01 else [])


class Tree(NamedTuple):
    """The trajectories of n chains, and what is known about them.

    Attributes:
        edges: Position, momentum and gradient at the earlier and the later end, shape (n, 2, 3, D).
        momentum_sum: rho, shape (n, D).
        log_weight: Of all its states, shape (n,).
        start_energy: H at the start, nats, shape (n,).
        position: Of the state chosen so far, shape (n, D).
        energy: Its U, shape (n,).
        gradient: Its gradient, shape (n, D).
        total_energy: Its H, shape (n,).
        acceptance: Sum of min(1, exp(-change of H)) over the states visited, shape (n,).
        num_gradients: States visited, int64, shape (n,).
        depth: Doublings that were kept, int64, shape (n,).
        is_accepted: Whether a state other than the first is chosen, shape (n,).
        is_divergent: Whether a state had an energy that is not finite or too high, shape (n,).
        is_growing: Whether it neither turned nor diverged, shape (n,).
    """

    edges: Tensor
    momentum_sum: Tensor
    log_weight: Tensor
    start_energy: Tensor
    position: Tensor
    energy: Tensor
    gradient: Tensor
    total_energy: Tensor
    acceptance: Tensor
    num_gradients: Tensor
    depth: Tensor
    is_accepted: Tensor
    is_divergent: Tensor
    is_growing: Tensor


def start_tree(state: State, noise: Tensor, parameters: Parameters) -> Tree:
    """Begin a trajectory of one state with a momentum from N(0, T M)."""
    momentum = noise * (parameters.inverse_mass_matrix.rsqrt() * parameters.temperature**0.5)
    total_energy = state.energy + kinetic_energy(momentum, parameters.inverse_mass_matrix)
    end = torch.stack([state.position, momentum, state.gradient], 1)
    zeros, none = torch.zeros_like(state.energy), torch.zeros_like(state.energy, dtype=torch.bool)
    counts = torch.zeros_like(none, dtype=torch.int64)
    return Tree(
        torch.stack([end, end], 1),
        momentum,
        zeros,
        total_energy,
        state.position,
        state.energy,
        state.gradient,
        total_energy,
        zeros,
        counts,
        counts,
        none,
        none,
        ~none,
    )


def double(tree: Tree, energy: BaseEnergyFunction, parameters: Parameters, num_leaves: int, uniforms: Tensor) -> Tree:
    """Add a subtree as large as the tree on a random side, and choose between them.

    Args:
        tree: Growing trees of `num_leaves` states each.
        energy: What to draw from.
        parameters: Those of these chains.
        num_leaves: States to add.
        uniforms: Three random numbers of each chain, shape (n, 3): for the side, inside the subtree, and between.
    """
    chains = torch.arange(len(uniforms), device=uniforms.device)
    side = (uniforms[:, 0] < 0.5).long()  # 1 is forward in time
    direction = (2 * side - 1).unsqueeze(-1)
    new = build(
        tree.edges[chains, side], tree.start_energy, energy, parameters, direction, num_leaves, uniforms[:, 1].clone()
    )
    log_u = torch.log1p(-uniforms[:, 2])
    is_taken = new.is_whole & (log_u <= new.log_weight - tree.log_weight)
    rows = is_taken.unsqueeze(-1)

    inverse_mass = parameters.inverse_mass_matrix
    border, far = tree.edges[chains, side, 1], tree.edges[chains, 1 - side, 1]
    momentum_sum = tree.momentum_sum + new.momentum_sum
    has_turned = is_turning(far, new.end[:, 1], momentum_sum, inverse_mass)
    has_turned |= is_turning(far, new.first_momentum, tree.momentum_sum + new.first_momentum, inverse_mass)
    has_turned |= is_turning(border, new.end[:, 1], new.momentum_sum + border, inverse_mass)

    edges = tree.edges.clone()
    edges[chains, side] = new.end
    return Tree(
        edges,
        momentum_sum,
        torch.logaddexp(tree.log_weight, new.log_weight),
        tree.start_energy,
        torch.where(rows, new.position, tree.position),
        torch.where(is_taken, new.energy, tree.energy),
        torch.where(rows, new.gradient, tree.gradient),
        torch.where(is_taken, new.total_energy, tree.total_energy),
        tree.acceptance + new.acceptance,
        tree.num_gradients + new.num_gradients,
        tree.depth + new.is_whole,
        tree.is_accepted | is_taken,
        tree.is_divergent | new.is_divergent,
        new.is_whole & ~has_turned,
    )


class Subtree(NamedTuple):
    """New states of n chains; where `is_whole` is false, they count for nothing but cost.

    Attributes are those of `Tree`, and:
        end: Position, momentum and gradient of the last state, shape (n, 3, D).
        first_momentum: Of the state next to the tree, shape (n, D).
        is_whole: Whether all states are there: nothing diverged, and no part turned; shape (n,).
    """

    end: Tensor
    first_momentum: Tensor
    momentum_sum: Tensor
    log_weight: Tensor
    position: Tensor
    energy: Tensor
    gradient: Tensor
    total_energy: Tensor
    acceptance: Tensor
    num_gradients: Tensor
    is_divergent: Tensor
    is_whole: Tensor


def build(
    edge: Tensor,
    start_energy: Tensor,
    energy: BaseEnergyFunction,
    parameters: Parameters,
    direction: Tensor,
    num_leaves: int,
    u: Tensor,
) -> Subtree:
    """Follow each trajectory for `num_leaves` steps, and draw one of the new states by weight.

    One uniform number per chain serves all comparisons: given the outcome of one, the remainder is uniform again.

    Args:
        edge: Position, momentum and gradient to go on from, shape (n, 3, D).
        start_energy: H at the start of the whole trajectory, nats, shape (n,).
        energy: What to draw from.
        parameters: Those of these chains.
        direction: 1 or -1, shape (n, 1).
        num_leaves: A power of two.
        u: Uniform in [0, 1), shape (n,).
    """
    step_size, inverse_mass = direction * parameters.step_size, parameters.inverse_mass_matrix
    temperature = parameters.chain_temperature
    x, p, gradient = edge.unbind(1)
    position, potential, slope, total_energy = x, start_energy, gradient, start_energy
    log_weight, momentum_sum = torch.full_like(u, -torch.inf), torch.zeros_like(p)
    acceptance, num_gradients = torch.zeros_like(u), torch.zeros_like(u, dtype=torch.int64)
    is_divergent = torch.zeros_like(u, dtype=torch.bool)
    is_whole = ~is_divergent
    checkpoints, first_momentum = Checkpoints(p, num_leaves), p
    for leaf in range(num_leaves):
        before = p
        p = torch.addcmul(p, step_size, gradient, value=-0.5)
        x = torch.addcmul(x, step_size * inverse_mass, p)
        value, gradient = energy.value_and_grad(x)
        p = torch.addcmul(p, step_size, gradient, value=-0.5)
        h = value + kinetic_energy(p, inverse_mass)
        change = (h - start_energy) / temperature
        is_finite = h.isfinite()
        num_gradients = num_gradients + is_whole
        acceptance = acceptance + torch.exp(-change.clamp(min=0)).where(is_whole & is_finite, 0.0)
        is_right = (change <= MAX_ENERGY_CHANGE) & is_finite
        is_divergent = is_divergent | (is_whole & ~is_right)
        is_whole = is_whole & is_right

        weight = torch.where(is_whole, -change, -torch.inf)
        log_weight = torch.logaddexp(log_weight, weight)
        share = torch.exp(weight - log_weight)
        is_taken = u < share  # False for finished chains, whose share is nan
        u = torch.where(is_taken, u / share, (u - share) / (1 - share))
        rows = is_taken.unsqueeze(-1)
        position, slope = torch.where(rows, x, position), torch.where(rows, gradient, slope)
        potential, total_energy = torch.where(is_taken, value, potential), torch.where(is_taken, h, total_energy)

        momentum_sum = momentum_sum + p
        first_momentum = p if leaf == 0 else first_momentum
        if leaf % 2:
            is_whole = is_whole & ~checkpoints.has_turned(leaf, p, momentum_sum, inverse_mass)
        elif num_leaves > 1:
            checkpoints.store(leaf, p, momentum_sum - p, before)
        if not is_whole.any():
            break
    return Subtree(
        torch.stack([x, p, gradient], 1),
        first_momentum,
        momentum_sum,
        log_weight.where(is_whole, -torch.inf),
        position,
        potential,
        slope,
        total_energy,
        acceptance,
        num_gradients,
        is_divergent,
        is_whole,
    )


class Checkpoints:
    """What the checks for U-turns inside a subtree need of earlier states: one for each level.

    States are numbered from 0. Those with an odd number n end as many subtrees as n has trailing ones in binary; the
    subtrees begin at even numbers, each of which is held at a place of its own, the number of ones in n // 2, until the
    last subtree that begins there has ended.

    Args:
        like: Momenta, shape (n, D).
        num_leaves: Of the whole subtree.
    """

    def __init__(self, like: Tensor, num_leaves: int) -> None:
        shape = (num_leaves.bit_length() - 1, *like.shape)
        self._momentum, self._sum, self._previous = (like.new_empty(shape) for _ in range(3))

    def store(self, leaf: int, momentum: Tensor, momentum_sum: Tensor, previous: Tensor) -> None:
        """Hold the momentum of an even state, the sum of those before it, and the momentum just before it."""
        place = (leaf >> 1).bit_count()
        self._momentum[place], self._sum[place], self._previous[place] = momentum, momentum_sum, previous

    def has_turned(self, leaf: int, momentum: Tensor, momentum_sum: Tensor, inverse_mass: Tensor) -> Tensor:
        """Whether a subtree that ends at this odd state turns, or its halves do across their border; shape (n,)."""
        last = (leaf >> 1).bit_count()
        first = last + 2 - (~leaf & (leaf + 1)).bit_length()  # one place per trailing 1 bit
        begin, before = self._momentum[first : last + 1], self._sum[first : last + 1]
        turned = is_turning(begin, momentum, momentum_sum - before, inverse_mass).any(0)
        if first < last:  # further places hold the start of a right half
            middle, left_end = begin[1:], self._previous[first + 1 : last + 1]
            left, right = before[1:] - before[:-1], momentum_sum - before[1:]
            turned |= is_turning(begin[:-1], middle, left + middle, inverse_mass).any(0)
            turned |= is_turning(left_end, momentum, right + left_end, inverse_mass).any(0)
        return turned


def is_turning(begin: Tensor, end: Tensor, momentum_sum: Tensor, inverse_mass: Tensor) -> Tensor:
    """Whether either end moves against the way that the trajectory went: (..., n, D) -> (..., n)."""
    way = inverse_mass * momentum_sum
    return ((begin * way).sum(-1) <= 0) | ((end * way).sum(-1) <= 0)


def _rows(parameters: Parameters, rows: Tensor) -> Parameters:
    """The parameters of some of the chains."""
    values = {name: getattr(parameters, name) for name in ("step_size", "inverse_mass_matrix", "temperature")}
    own: dict[str, Any] = {name: v[rows] for name, v in values.items() if isinstance(v, Tensor) and v.ndim == 2}
    return replace(parameters, **own)
