"""What every kernel passes on every energy that can be drawn from exactly.

Starting many chains at exact draws and comparing moments after a few transitions sees errors that a long run hides.
The threshold of 4.5 standard errors is about 7e-6 on two sides. Unadjusted Langevin must fail: it shows that the test
sees a bias.
"""

from __future__ import annotations

import math

import pytest
import torch

from tests.mcmc.targets import (
    BASIC,
    EXACT_KERNELS,
    KERNELS,
    SLOW,
    TARGETS,
    Derived,
    Function,
    correlated_gaussian,
    fewer,
    in_equilibrium,
    parameters,
    statistics,
    step_size,
    tempered,
    with_equilibrium,
)
from vaebench.hardware import collective
from vaebench.mcmc.state import Draw, Parameters

NUM_EXACT = 100_000
LIMIT = 4.5


class Replay(Draw):
    """Hands out what was recorded, for the chains that are asked for."""

    def __init__(self, recorded, rows) -> None:
        super().__init__()
        self.queue, self.rows = list(recorded), rows

    def normal(self, like):
        return self.queue.pop(0)[self.rows].to(like)

    uniform = normal


class Record(Draw):
    def __init__(self) -> None:
        super().__init__()
        self.drawn = []

    def normal(self, like):
        self.drawn.append(super().normal(like))
        return self.drawn[-1]

    def uniform(self, like):
        self.drawn.append(super().uniform(like))
        return self.drawn[-1]


def largest_z(before, after, energy, reference) -> float:
    """The largest standardised difference of means: paired with the start, and unpaired with fresh draws."""
    first, last, fresh = (statistics(x, energy.energy(x)) for x in (before, after, reference))
    worst = 0.0
    for name, moved in last.items():
        change = moved - first[name]
        paired = change.mean(0) / (change.std(0) / math.sqrt(len(change))).clamp(min=1e-12)
        error = (moved.var(0) / len(moved) + fresh[name].var(0) / len(reference)).sqrt()
        unpaired = (moved.mean(0) - fresh[name].mean(0)) / error
        worst = max(worst, float(paired.abs().max()), float(unpaired.abs().max()))
    return worst


def num_chains(kernel: str, target: str) -> int:
    """How many exact draws are moved."""
    return NUM_EXACT // fewer(kernel, target)


def invariance(kernel: str, target: str, num_transitions: int, dtype=torch.float64, num_exact: int = NUM_EXACT):
    energy, move = TARGETS[target], KERNELS[kernel]
    num_exact //= fewer(kernel, target)
    settings, draw = parameters(step_size(kernel, target), energy.num_dims, dtype), Draw()
    try:
        state = in_equilibrium(kernel, target, num_exact, dtype=dtype)
        start = state.position.double()
        for _ in range(num_transitions):
            state, info = move.step(state, energy, settings, draw)
    finally:
        energy = energy.double()
    return largest_z(start, state.position.double(), energy, energy.exact_sample(num_exact).double()), info


@pytest.mark.parametrize(
    ("kernel", "target", "num_transitions", "num_exact"),
    [
        *((kernel, name, k, NUM_EXACT) for kernel in EXACT_KERNELS for name in BASIC for k in (1, 5)),
        *((kernel, name, 3, 40_000) for kernel in EXACT_KERNELS for name in with_equilibrium(kernel)),
    ],
)
def test_leaves_exact_draws_invariant(kernel, target, num_transitions, num_exact):
    num_transitions = 1 if kernel in SLOW and num_exact < NUM_EXACT else num_transitions
    z, info = invariance(kernel, target, num_transitions, num_exact=num_exact)
    assert z <= LIMIT
    assert 0.3 < float(info.acceptance_probability.mean()) < 0.995  # neither frozen nor unable to show an error


@pytest.mark.parametrize("kernel", EXACT_KERNELS)
def test_leaves_exact_draws_invariant_in_single_precision(kernel):
    assert invariance(kernel, "double_well", 5, torch.float32)[0] <= LIMIT


@pytest.mark.parametrize("target", BASIC)
@pytest.mark.parametrize("kernel", [name for name in KERNELS if name not in EXACT_KERNELS])
def test_a_biased_kernel_fails(kernel, target):
    """The negative control of the test above."""
    assert invariance(kernel, target, 5)[0] > LIMIT
    assert KERNELS[kernel].caveat


@pytest.mark.parametrize("temperature", [0.5, 2.0])
@pytest.mark.parametrize("kernel", EXACT_KERNELS)
def test_a_temperature_divides_the_energy(kernel, temperature):
    energy, move = TARGETS["gaussian"], KERNELS[kernel]
    settings = parameters(step_size(kernel, "gaussian"), temperature=temperature)
    state = in_equilibrium(kernel, "gaussian", num_chains(kernel, "gaussian"), temperature)
    start, fresh = state.position, tempered("gaussian", temperature, len(state.position))
    for _ in range(3):
        state, info = move.step(state, energy, settings, Draw())
    assert largest_z(start, state.position, energy, fresh) <= LIMIT
    assert 0.3 < float(info.acceptance_probability.mean()) < 0.995


@pytest.mark.parametrize("target", BASIC)
@pytest.mark.parametrize("kernel", [name for name in EXACT_KERNELS if KERNELS[name].is_metropolised])
def test_mean_of_exp_minus_energy_change_is_one(kernel, target):
    energy, move = TARGETS[target], KERNELS[kernel]
    # at steps as long as those above, exp(-change) is so heavy-tailed that its mean hangs on a handful of chains
    settings = parameters(step_size(kernel, target) / 8, energy.num_dims)
    _, info = move.step(move.init(energy.exact_sample(num_chains(kernel, target)), energy), energy, settings, Draw())
    ratio = torch.exp(-info.energy_change)
    assert float(ratio.std()) > 0
    assert abs(float(ratio.mean()) - 1) <= LIMIT * float(ratio.std()) / math.sqrt(len(ratio))


def flow_statistic(kernel: str, target: str) -> float:
    """Asymmetry of the flow between eight cells in equilibrium: chi-squared with 28 degrees of freedom."""
    energy, move = TARGETS[target], KERNELS[kernel]
    start = energy.exact_sample(num_chains(kernel, target))
    settings = parameters(step_size(kernel, target), energy.num_dims)
    state, _ = move.step(move.init(start, energy), energy, settings, Draw())
    edges = torch.quantile(start[:, 0], torch.linspace(0, 1, 9, dtype=torch.float64)[1:-1])
    cells = [torch.bucketize(x[:, 0].contiguous(), edges) for x in (start, state.position)]
    counts = torch.bincount(cells[0] * 8 + cells[1], minlength=64).view(8, 8).double()
    return float(((counts - counts.T).square() / (counts + counts.T).clamp(min=1)).triu(1).sum())


@pytest.mark.parametrize("target", BASIC)
@pytest.mark.parametrize("kernel", [name for name in EXACT_KERNELS if KERNELS[name].is_reversible])
def test_flow_is_reversible(kernel, target):
    assert flow_statistic(kernel, target) < 75  # a probability of 4e-6


@pytest.mark.parametrize("kernel", [name for name in EXACT_KERNELS if KERNELS[name].is_reversible])
def test_the_flow_sees_a_kernel_that_is_not_reversible(kernel, monkeypatch):
    right = Draw.normal
    monkeypatch.setattr(Draw, "normal", lambda self, like: right(self, like) + 0.5)
    assert flow_statistic(kernel, "gaussian") > 75


FAULTS = {
    "one uniform for all chains": ("log_uniform", lambda right, self, like: right(self, like[:1]).expand_as(like)),
    "everything accepted": ("log_uniform", lambda right, self, like: right(self, like) - 1e6),
    "half the energy change": ("log_uniform", lambda right, self, like: 2 * right(self, like)),
    "cold noise": ("normal", lambda right, self, like: 0.95 * right(self, like)),
}


# Where faults show: on which target, at how many times the step size, and those that cannot. Riemannian steps are short
# on the double well; microcanonical ones too exact, and of their noise the direction alone counts.
FAULT_ON = {"riemannian_hmc": ("gaussian", 1.0, set()), "adjusted_mclmc": ("gaussian", 1.5, {"cold noise"})}


@pytest.mark.parametrize(
    ("kernel", "fault"),
    [
        (kernel, fault)
        for kernel in EXACT_KERNELS
        for fault in FAULTS
        if KERNELS[kernel].is_metropolised and fault not in FAULT_ON.get(kernel, ("", 1.0, ()))[2]
    ],
)
def test_invariance_sees_a_wrong_kernel(kernel, fault, monkeypatch):
    """Faults put in on purpose: the test of invariance must be able to fail."""
    target, factor, _ = FAULT_ON.get(kernel, ("double_well", 1.0, set()))
    size = factor * step_size(kernel, target)  # found with the right kernel
    monkeypatch.setattr(f"{__name__}.step_size", lambda *names: size)
    name, wrong = FAULTS[fault]
    right = getattr(Draw, name)
    monkeypatch.setattr(Draw, name, lambda self, like: wrong(right, self, like))
    assert invariance(kernel, target, 5)[0] > LIMIT


@pytest.mark.parametrize("kernel", [name for name in KERNELS if name != "riemannian_hmc"])  # its Hessians cost D
def test_gradients_are_counted(kernel):
    energy, move = Derived(correlated_gaussian()), KERNELS[kernel]
    num_replicas = getattr(move, "num_temperatures", 1)  # in one call
    state = move.init(energy.inner.exact_sample(4), energy)
    assert energy.calls == 1
    total = 1
    for _ in range(5):
        state, info = move.step(state, energy, parameters(0.3), Draw())
        assert info.num_gradients.shape == (4,)
        assert info.num_gradients.dtype == torch.int64
        total += int(info.num_gradients.max()) // num_replicas  # chains that have stopped wait for the others
    assert energy.calls == total
    assert energy.rows <= 4 * num_replicas * total


@pytest.mark.parametrize("target", BASIC)
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_state_carries_the_energy_and_gradient_of_its_position(kernel, target):
    energy, move = TARGETS[target], KERNELS[kernel]
    state = move.init(energy.exact_sample(500), energy)
    settings = parameters(step_size(kernel, target), energy.num_dims)
    for _ in range(3):
        state, _ = move.step(state, energy, settings, Draw())
    assert state.iteration == 3
    value, gradient = energy.value_and_grad(state.position)
    torch.testing.assert_close(state.energy, value)
    torch.testing.assert_close(state.gradient, gradient)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_chain_does_not_depend_on_its_batch(kernel):
    energy, move, settings = TARGETS["double_well"], KERNELS[kernel], parameters(step_size(kernel, "double_well"))
    start, record = energy.exact_sample(6), Record()
    together, info = move.step(move.init(start, energy), energy, settings, record)
    groups = [*([i] for i in range(6)), torch.randperm(6)] if KERNELS[kernel].chains_are_apart else []
    for rows in groups:
        draw = Replay(record.drawn, rows)
        alone, own = move.step(move.init(start[rows], energy), energy, settings, draw)
        torch.testing.assert_close(alone.position, together.position[rows], rtol=1e-10, atol=1e-10)
        assert torch.equal(own.num_gradients, info.num_gradients[rows])


@pytest.mark.parametrize("kernel", [name for name in KERNELS if KERNELS[name].chains_are_apart])
def test_processes_draw_what_one_would(kernel):
    energy, move, settings = TARGETS["double_well"], KERNELS[kernel], parameters(step_size(kernel, "double_well"))
    start, ends = energy.exact_sample(5), []
    for first, last in ((0, 5), (0, 2), (2, 5)):
        draw = Draw(torch.Generator().manual_seed(3))
        with collective.shard(first, last, 5):
            state = move.init(start[first:last], energy)
            for _ in range(4):
                state, _ = move.step(state, energy, settings, draw)
        ends.append(state.position)
    torch.testing.assert_close(torch.cat(ends[1:]), ends[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel", [name for name in KERNELS if not KERNELS[name].shares_step_size])
def test_one_step_size_per_chain(kernel):
    energy, move = correlated_gaussian(), KERNELS[kernel]
    start, sizes = energy.exact_sample(2), torch.tensor([[0.1], [0.4]])
    record = Record()
    both, _ = move.step(move.init(start, energy), energy, parameters(sizes), record)
    for i in range(2):
        draw = Replay(record.drawn, slice(None))
        single, _ = move.step(move.init(start, energy), energy, parameters(sizes[i, 0]), draw)
        torch.testing.assert_close(single.position[i], both.position[i])


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_generator_is_the_only_source_of_randomness(kernel):
    energy, move, settings = TARGETS["double_well"], KERNELS[kernel], parameters(step_size(kernel, "double_well"))
    start, ends = energy.exact_sample(3), []
    for seed in (5, 5, 6):
        state, draw = move.init(start, energy), Draw(torch.Generator().manual_seed(seed))
        for _ in range(3):
            state, _ = move.step(state, energy, settings, draw)
        ends.append(state.position)
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


FAULTY = {
    "energy nan": lambda value, gradient, rows: (value.where(~rows, math.nan), gradient),
    "energy inf": lambda value, gradient, rows: (value.where(~rows, math.inf), gradient),
    "energy -inf": lambda value, gradient, rows: (value.where(~rows, -math.inf), gradient),
    "gradient nan": lambda value, gradient, rows: (value, gradient.where(~rows[:, None], math.nan)),
}


@pytest.mark.parametrize("fault", FAULTY)
@pytest.mark.parametrize("kernel", KERNELS)
def test_what_is_not_finite_is_rejected_and_counted(kernel, fault):
    move, gaussian = KERNELS[kernel], correlated_gaussian()
    far = torch.tensor([1e4, 0.0], dtype=torch.float64)  # every other chain is there, where the fault is
    energy = Function(lambda x: gaussian.value_and_grad(x - far * (x[:, :1] > 5e3)))
    faulty = Derived(energy, lambda x, v, g: FAULTY[fault](v, g, x[:, 0] > 5e3))
    start = move.init(gaussian.exact_sample(200) + far * (1 - torch.arange(200) % 2)[:, None], energy)
    state, info = move.step(start, faulty, parameters(0.2), Draw())
    bad = slice(0, None, 2)
    assert torch.equal(state.position[bad], start.position[bad])
    assert torch.equal(state.energy[bad], start.energy[bad])
    assert torch.equal(state.gradient[bad], start.gradient[bad])
    assert (info.acceptance_probability[bad] == 0).all()
    assert info.is_divergent[bad].all()
    assert not info.is_divergent[1::2].any()
    assert info.is_accepted[1::2].any()
    assert state.position.isfinite().all()
    assert info.total_energy.isfinite().all()


@pytest.mark.parametrize("kernel", EXACT_KERNELS)
def test_a_truncated_normal_keeps_its_variance(kernel):
    """An energy of inf outside a box: no mass is lost, and none piles up at the wall."""
    box = Function(lambda x: ((0.5 * x.square()).sum(-1).where((x.abs() <= 1).all(-1), math.inf), x))
    num_dims = KERNELS[kernel].min_dims
    u = torch.rand(2 * num_chains(kernel, "box") // num_dims, num_dims, dtype=torch.float64)
    low, high = (torch.special.ndtr(torch.tensor(v, dtype=torch.float64)) for v in (-1.0, 1.0))
    move = KERNELS[kernel]
    state = move.init(torch.special.ndtri(low + u * (high - low)), box)
    for _ in range(5):
        settings = Parameters(torch.tensor(0.05).double(), torch.ones(num_dims).double())
        state, _ = move.step(state, box, settings, Draw())
    x = state.position.flatten()
    error = float(x.square().std()) / math.sqrt(len(x))
    assert abs(float(x.square().mean()) - 0.29112509) <= LIMIT * error
    assert len(x.unique()) == len(x)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_start_outside_the_support_is_refused(kernel, value):
    flat = Function(lambda x: (x.sum(-1), x))
    with pytest.raises(ValueError, match=r"chains \[1\] of 3 start outside"):
        KERNELS[kernel].init(torch.tensor([[0.0, 0.0], [value, 0.0], [1.0, 0.0]]), flat)


@pytest.mark.parametrize("kernel", [name for name in KERNELS if KERNELS[name].min_dims > 1])
def test_too_few_dimensions_are_refused(kernel):
    with pytest.raises(ValueError, match=f"kernel={kernel} needs at least 2 dimensions, got 1"):
        KERNELS[kernel].init(torch.zeros(3, 1), Function(lambda x: (x.sum(-1), x)))


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_energy_of_another_shape_or_dimension_is_refused(kernel):
    move = KERNELS[kernel]
    with pytest.raises(ValueError, match=r"expected an energy of shape \(3,\)"):
        move.init(torch.zeros(3, 2), Function(lambda x: (x, x)))
    with pytest.raises(ValueError, match="of 2 dimensions for RosenbrockEnergy, got 3"):
        move.init(torch.zeros(4, 3).double(), TARGETS["rosenbrock"])
    with pytest.raises(ValueError, match="shape"):
        move.init(torch.zeros(4), TARGETS["rosenbrock"])
