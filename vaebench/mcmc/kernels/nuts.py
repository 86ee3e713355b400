r"""The No-U-Turn Sampler: multinomial, iterative, batched over chains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from vaebench.energies.base import BaseEnergyFunction
from vaebench.mcmc.kernels.hmc import kinetic_energy
from vaebench.mcmc.kernels.kernel import MAX_ENERGY_CHANGE, Kernel, Report
from vaebench.mcmc.state import Draw, Info, Parameters, State
from vaebench.messages import check_range

BLOCK = 8  # leapfrog steps between two looks at the chains; some of the last block's may be in vain


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
    that a transition takes as long as its longest trajectory. Subtrees are built iteratively, in blocks of a few steps
    that are weighed and checked together, with one stored span of blocks for each level. All random numbers are drawn
    at the start, as many for a short trajectory as for a long one, so that no chain's numbers depend on another's
    trajectory.

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
        uniforms = draw.uniform(state.energy.new_empty(len(noise), self.max_depth, 4))
        tree = start_tree(state, noise, parameters)
        for depth in range(self.max_depth):
            rows = tree.is_growing.nonzero().squeeze(-1)
            if not len(rows):
                break
            if len(rows) == len(noise):
                tree = double(tree, energy, parameters, 2**depth, uniforms[:, depth])
            else:
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
        uniforms: Four random numbers of each chain, shape (n, 4): for the side, two for `build`, and between.
    """
    chains = torch.arange(len(uniforms), device=uniforms.device)
    side = (uniforms[:, 0] < 0.5).long()  # 1 is forward in time
    direction = (2 * side - 1).unsqueeze(-1)
    edge = tree.edges[chains, side]
    new = build(edge, tree.start_energy, energy, parameters, direction, num_leaves, uniforms[:, 1:3])
    is_taken = new.is_whole & (torch.log1p(-uniforms[:, 3]) <= new.log_weight - tree.log_weight)
    rows = is_taken.unsqueeze(-1)

    old = Span(tree.edges[chains, 1 - side, 1], edge[:, 1], tree.momentum_sum)
    edges = tree.edges.clone()
    edges[chains, side] = new.end
    return Tree(
        edges,
        tree.momentum_sum + new.span.momentum_sum,
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
        new.is_whole & ~turns(old, new.span, parameters.inverse_mass_matrix),
    )


class Span(NamedTuple):
    """States one after another, as the checks for U-turns see them; each of shape (n, D).

    Attributes:
        first: Momentum of the state at the end nearer to the tree.
        last: Momentum of the state at the other end.
        momentum_sum: Sum of the momenta of all states.
    """

    first: Tensor
    last: Tensor
    momentum_sum: Tensor


class Subtree(NamedTuple):
    """New states of n chains; where `is_whole` is false, they count for nothing but cost.

    Attributes are those of `Tree`, and:
        end: Position, momentum and gradient of the last state, shape (n, 3, D).
        span: All states.
        is_whole: Whether all states are there: nothing diverged, and no part turned; shape (n,).
    """

    end: Tensor
    span: Span
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
    uniforms: Tensor,
) -> Subtree:
    """Follow each trajectory for `num_leaves` steps, and draw one of the new states by weight.

    One uniform number per chain chooses inside a block. Another serves all choices between blocks: given the outcome of
    one, the remainder is uniform again.

    Args:
        edge: Position, momentum and gradient to go on from, shape (n, 3, D).
        start_energy: H at the start of the whole trajectory, nats, shape (n,).
        energy: What to draw from.
        parameters: Those of these chains.
        direction: 1 or -1, shape (n, 1).
        num_leaves: A power of two.
        uniforms: In [0, 1), shape (n, 2).
    """
    size, u = min(num_leaves, BLOCK), uniforms[:, 1]
    new = follow(edge, start_energy, energy, parameters, direction, size, uniforms[:, 0])
    spans = [new.span]
    for number in range(2, num_leaves // size + 1):
        if not new.is_whole.any():
            break
        block = follow(new.end, start_energy, energy, parameters, direction, size, uniforms[:, 0])
        log_weight = torch.logaddexp(new.log_weight, block.log_weight)
        share = torch.exp(block.log_weight - log_weight)
        is_taken, is_visited = u < share, new.is_whole
        u = torch.where(is_taken, u / share, (u - share) / (1 - share))
        rows, is_whole = is_taken.unsqueeze(-1), is_visited & block.is_whole
        spans.append(block.span)
        while len(spans) > number.bit_count():  # the last two are the halves of a subtree
            right, left = spans.pop(), spans.pop()
            is_whole &= ~turns(left, right, parameters.inverse_mass_matrix)
            spans.append(joined(left, right))
        new = Subtree(
            block.end,
            spans[0],
            log_weight,
            torch.where(rows, block.position, new.position),
            torch.where(is_taken, block.energy, new.energy),
            torch.where(rows, block.gradient, new.gradient),
            torch.where(is_taken, block.total_energy, new.total_energy),
            new.acceptance + block.acceptance.where(is_visited, 0.0),
            new.num_gradients + block.num_gradients * is_visited,
            new.is_divergent | (block.is_divergent & is_visited),
            is_whole,
        )
    return new


def follow(
    edge: Tensor,
    start_energy: Tensor,
    energy: BaseEnergyFunction,
    parameters: Parameters,
    direction: Tensor,
    num_leaves: int,
    u: Tensor,
) -> Subtree:
    """Make so few steps that they can be looked at together when all are done; arguments as in `build`, u (n,)."""
    step_size, inverse_mass = direction * parameters.step_size, parameters.inverse_mass_matrix
    drift, (x, p, gradient), steps = step_size * inverse_mass, edge.unbind(1), []
    for leaf in range(num_leaves):
        p = torch.addcmul(p, step_size, gradient, value=-1 if leaf else -0.5)  # two half kicks in one
        x = torch.addcmul(x, drift, p)
        value, gradient = energy.value_and_grad(x)
        steps.append((x, p, gradient, value))
    positions, momenta, gradients, values = (torch.stack(series) for series in zip(*steps, strict=True))
    momenta.addcmul_(step_size, gradients, value=-0.5)
    total_energy = values + kinetic_energy(momenta, inverse_mass)

    log_weights = (start_energy - total_energy) / parameters.chain_temperature
    is_right = (log_weights >= -MAX_ENERGY_CHANGE) & (total_energy > -torch.inf)
    is_stop = ~is_right if num_leaves == 1 else turns_at(momenta, inverse_mass).logical_or_(~is_right)
    is_visited = is_stop.cumsum(0) == is_stop  # nothing stopped it before
    is_counted = is_visited & is_right
    cumulative = torch.logcumsumexp(log_weights, 0)
    chosen = (cumulative < cumulative[-1] + torch.log1p(-u)).sum(0), torch.arange(len(u), device=u.device)
    return Subtree(
        torch.stack([x, momenta[-1], gradient], 1),
        Span(momenta[0], momenta[-1], momenta.sum(0)),
        cumulative[-1],
        positions[chosen],
        values[chosen],
        gradients[chosen],
        total_energy[chosen],
        log_weights.clamp(max=0).exp_().where(is_counted, 0.0).sum(0),
        is_visited.sum(0),
        (is_visited ^ is_counted).any(0),
        ~is_stop.any(0),
    )


def turns_at(momenta: Tensor, inverse_mass: Tensor) -> Tensor:
    """Whether a subtree of these states (L, n, D), L a power of two, ends at each and turns; shape (L, n).

    What is compared with 0 are sums of the inner products of any two momenta, so that these are all that is computed.
    """
    p = momenta.transpose(0, 1)
    products = (p * inverse_mass.unsqueeze(-2)) @ p.mT  # (n, L, L)
    first, last, states, ends = (table.to(p.device) for table in checks(len(momenta)))
    products = products.nan_to_num(0.0, 0.0, 0.0)  # those of a divergence, which must not reach other sums
    sums = products @ states.to(p)  # (n, L, K), of one momentum with a sum of others
    each = torch.arange(len(first), device=p.device)
    is_turn = (sums[:, first, each] <= 0) | (sums[:, last, each] <= 0)
    return (ends.to(p) @ is_turn.mT.to(p)) > 0


@cache
def checks(num_leaves: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What is checked in the subtrees of a number of states: each as a whole, and across the border of its halves.

    Returns:
        For K checks: the two states that are compared, int64, each of shape (K,); which states are added up, 0 or 1,
        shape (L, K); and at which state the subtree ends, 0 or 1, shape (L, K).
    """
    found = []
    for size in (2**level for level in range(1, num_leaves.bit_length())):
        for start in range(0, num_leaves, size):
            middle, last = start + size // 2, start + size - 1
            found += [(start, last, last), (start, middle, last), (middle - 1, last, last)]
    first, last, end = torch.tensor(found).unbind(1)
    leaves = torch.arange(num_leaves).unsqueeze(-1)
    return first, last, (first <= leaves) & (leaves <= last), leaves == end


def joined(left: Span, right: Span) -> Span:
    """Put two spans together."""
    return Span(left.first, right.last, left.momentum_sum + right.momentum_sum)


def turns(left: Span, right: Span, inverse_mass: Tensor) -> Tensor:
    """Whether two halves turn, together or across their border: spans of shape (n, D) -> (n,)."""
    total = left.momentum_sum + right.momentum_sum
    begin = torch.stack([left.first, left.first, left.last])
    end = torch.stack([right.last, right.first, right.last])
    sums = torch.stack([total, left.momentum_sum + right.first, left.last + right.momentum_sum])
    return is_turning(begin, end, sums, inverse_mass).any(0)


def is_turning(begin: Tensor, end: Tensor, momentum_sum: Tensor, inverse_mass: Tensor) -> Tensor:
    """Whether either end moves against the way that the trajectory went: (..., n, D) -> (..., n)."""
    way = inverse_mass * momentum_sum
    return ((begin * way).sum(-1) <= 0) | ((end * way).sum(-1) <= 0)


def _rows(parameters: Parameters, rows: Tensor) -> Parameters:
    """The parameters of some of the chains."""
    values = {name: getattr(parameters, name) for name in ("step_size", "inverse_mass_matrix", "temperature")}
    own: dict[str, Any] = {name: v[rows] for name, v in values.items() if isinstance(v, Tensor) and v.ndim == 2}
    return replace(parameters, **own)
