"""The kernel against its identities, and against exact draws.

Starting many chains at exact draws and comparing moments after a few transitions sees errors that a long run hides.
The threshold of 4.5 standard errors is about 7e-6 on two sides.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch

from tests.mcmc.targets import TARGETS, correlated_gaussian, statistics
from vaebench.energies.analytic.gaussian import GaussianEnergy
from vaebench.mcmc.kernels import hmc, kernel
from vaebench.mcmc.kernels.kernel import Parameters, State

NUM_EXACT = 100_000


def parameters(step_size: float, num_dims: int = 2, dtype: torch.dtype = torch.float64) -> Parameters:
    inverse_mass = torch.linspace(0.5, 1.5, num_dims, dtype=dtype)
    return Parameters(torch.tensor(step_size, dtype=dtype), inverse_mass)


def largest_z(before: torch.Tensor, after: torch.Tensor, energy, reference: torch.Tensor) -> float:
    """The largest standardised difference of means: paired with the start, and unpaired with fresh draws."""
    first, last = statistics(before, energy.energy(before)), statistics(after, energy.energy(after))
    fresh = statistics(reference, energy.energy(reference))
    worst = 0.0
    for name, moved in last.items():
        change = moved - first[name]
        paired = change.mean(0) / (change.std(0) / math.sqrt(len(change))).clamp(min=1e-12)
        error = (moved.var(0) / len(moved) + fresh[name].var(0) / len(reference)).sqrt()
        unpaired = (moved.mean(0) - fresh[name].mean(0)) / error
        worst = max(worst, float(paired.abs().max()), float(unpaired.abs().max()))
    return worst


def invariance(name: str, num_transitions: int, num_leapfrog: int = 5) -> tuple[float, kernel.Info]:
    energy, step_size = TARGETS[name]
    move = hmc.HMCKernel(energy.value_and_grad, num_leapfrog, jitter=0.5)
    start = energy.exact_sample(NUM_EXACT)
    state = move.init(start)
    for _ in range(num_transitions):
        state, info = move.step(state, parameters(step_size))
    return largest_z(start, state.position, energy, energy.exact_sample(NUM_EXACT)), info


@pytest.mark.parametrize("num_transitions", [1, 5])
@pytest.mark.parametrize("name", TARGETS)
def test_leaves_exact_draws_invariant(name, num_transitions):
    z, info = invariance(name, num_transitions)
    assert z <= 4.5
    assert 0.3 < float(info.is_accepted.double().mean()) < 0.99  # neither frozen nor unable to show an error


@pytest.mark.parametrize("fault", ["no accept", "half the energy change", "cold momentum", "one uniform for all"])
def test_invariance_sees_a_wrong_kernel(fault, monkeypatch):
    """Negative controls: the test above must be able to fail."""
    right = kernel.metropolis
    if fault == "no accept":
        monkeypatch.setattr(hmc, "metropolis", lambda s, p, a, b, u: right(s, p, a, b, u - 1e6))
    elif fault == "half the energy change":
        monkeypatch.setattr(hmc, "metropolis", lambda s, p, a, b, u: right(s, p, a / 2, b / 2, u))
    elif fault == "cold momentum":
        draw = torch.randn
        monkeypatch.setattr(hmc.torch, "randn", lambda *a, **k: 0.97 * draw(*a, **k))
    else:
        monkeypatch.setattr(hmc, "log_uniform", lambda n, x, g: kernel.log_uniform(1, x, g).expand(n))
    assert invariance("double_well", 5)[0] > 4.5


@pytest.mark.parametrize("name", TARGETS)
def test_mean_of_exp_minus_energy_change_is_one(name):
    energy, step_size = TARGETS[name]
    move = hmc.HMCKernel(energy.value_and_grad, 5)
    # at steps as long as those above, exp(-change) is so heavy-tailed that its mean hangs on a handful of chains
    _, info = move.step(move.init(energy.exact_sample(NUM_EXACT)), parameters(step_size / 4))
    ratio = torch.exp(-info.energy_change)
    assert abs(float(ratio.mean()) - 1) <= 4.5 * float(ratio.std()) / math.sqrt(len(ratio))


def flow_statistic(name: str) -> float:
    """Asymmetry of the flow between eight cells in equilibrium: chi-squared with 28 degrees of freedom."""
    energy, step_size = TARGETS[name]
    move = hmc.HMCKernel(energy.value_and_grad, 3, jitter=0)
    start = energy.exact_sample(NUM_EXACT)
    state, _ = move.step(move.init(start), parameters(step_size))
    edges = torch.quantile(start[:, 0], torch.linspace(0, 1, 9, dtype=torch.float64)[1:-1])
    cells = [torch.bucketize(x[:, 0].contiguous(), edges) for x in (start, state.position)]
    counts = torch.bincount(cells[0] * 8 + cells[1], minlength=64).view(8, 8).double()
    return float(((counts - counts.T).square() / (counts + counts.T).clamp(min=1)).triu(1).sum())


@pytest.mark.parametrize("name", TARGETS)
def test_flow_is_reversible(name):
    assert flow_statistic(name) < 75  # a probability of 4e-6


def test_the_flow_sees_a_kernel_that_is_not_reversible(monkeypatch):
    draw = torch.randn
    monkeypatch.setattr(hmc.torch, "randn", lambda *a, **k: draw(*a, **k) + 0.2)
    assert flow_statistic("gaussian") > 75


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-3)])
@pytest.mark.parametrize("name", TARGETS)
def test_leapfrog_reverses(name, dtype, tolerance):
    energy, step_size = TARGETS[name]
    energy = copy.deepcopy(energy).to(dtype)
    start = hmc.HMCKernel(energy.value_and_grad).init(energy.exact_sample(50).to(dtype))
    momentum = torch.randn_like(start.position)
    settings = parameters(step_size / 2, dtype=dtype)
    end, end_momentum = hmc.leapfrog(energy.value_and_grad, start, momentum, settings, 100)
    back, back_momentum = hmc.leapfrog(energy.value_and_grad, end, -end_momentum, settings, 100)
    assert (end.position - start.position).abs().max() > 0.1
    assert (back.position - start.position).abs().max() <= tolerance
    assert (back_momentum + momentum).abs().max() <= tolerance * 20


def test_leapfrog_preserves_volume():
    covariance = torch.eye(3, dtype=torch.float64) + 0.4
    energy = GaussianEnergy(torch.zeros(3, dtype=torch.float64), covariance)

    def quartic(x):
        value, gradient = energy.value_and_grad(x)
        return value + 0.25 * (x**4).sum(-1), gradient + x**3

    def flow(z):
        value, gradient = quartic(z[None, :3])
        end, p = hmc.leapfrog(quartic, State(z[None, :3], value, gradient), z[None, 3:], parameters(0.2, 3), 7)
        return torch.cat([end.position[0], p[0]])

    for _ in range(5):
        jacobian = torch.autograd.functional.jacobian(flow, torch.randn(6, dtype=torch.float64))
        assert abs(float(torch.linalg.det(jacobian)) - 1) <= 1e-8


@pytest.mark.parametrize("name", ["gaussian", "double_well"])
def test_leapfrog_is_of_second_order(name):
    energy, _ = TARGETS[name]
    move = hmc.HMCKernel(energy.value_and_grad)
    start = move.init(energy.exact_sample(200))
    momentum = torch.randn_like(start.position)
    errors, sizes = [], [0.02, 0.01, 0.005, 0.0025]
    for step_size in sizes:
        settings = parameters(step_size)
        end, p = hmc.leapfrog(energy.value_and_grad, start, momentum, settings, round(1 / step_size))
        h = [s.energy + hmc.kinetic_energy(q, settings.inverse_mass_matrix) for s, q in ((start, momentum), (end, p))]
        errors.append(math.log(float((h[1] - h[0]).abs().max())))
    slope = (errors[0] - errors[-1]) / math.log(sizes[0] / sizes[-1])
    assert 1.9 <= slope <= 2.1


def test_leapfrog_follows_the_harmonic_oscillator():
    energy = GaussianEnergy(torch.zeros(1, dtype=torch.float64), torch.eye(1, dtype=torch.float64))
    start = hmc.HMCKernel(energy.value_and_grad).init(torch.tensor([[1.0], [-0.5]], dtype=torch.float64))
    momentum = torch.tensor([[0.3], [2.0]], dtype=torch.float64)
    settings = Parameters(torch.tensor(1e-3, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    end, p = hmc.leapfrog(energy.value_and_grad, start, momentum, settings, 1000)
    cos, sin = math.cos(1.0), math.sin(1.0)
    torch.testing.assert_close(end.position, start.position * cos + momentum * sin, atol=1e-6, rtol=0)
    torch.testing.assert_close(p, momentum * cos - start.position * sin, atol=1e-6, rtol=0)


def test_one_gradient_per_leapfrog_step_and_one_at_the_start():
    energy, calls = correlated_gaussian(), []

    def counting(x):
        calls.append(1)
        return energy.value_and_grad(x)

    move = hmc.HMCKernel(counting, 7, jitter=0)
    state = move.init(energy.start(4))
    assert len(calls) == 1
    for _ in range(3):
        assert move.num_gradients(state.iteration) == 7
        state, _ = move.step(state, parameters(0.3))
    assert len(calls) == 1 + 3 * 7


@pytest.mark.parametrize("name", TARGETS)
def test_the_gradient_alone_serves_all_but_the_last_step(name):
    energy, step_size = TARGETS[name]
    values, gradients = [], []

    def with_value(x):
        values.append(x)
        return energy.value_and_grad(x)

    def alone(x):
        gradients.append(x)
        return energy.gradient(x)

    start, log_u = hmc.HMCKernel(energy.value_and_grad).init(energy.exact_sample(20)), torch.full((20,), -50.0).double()
    momentum = torch.randn_like(start.position)
    expected = hmc.HMCKernel(energy.value_and_grad, 7, jitter=0).transition(
        start, parameters(step_size), momentum, log_u
    )
    move = hmc.HMCKernel(with_value, 7, jitter=0, gradient=alone)
    got = move.transition(start, parameters(step_size), momentum, log_u)
    assert (len(values), len(gradients)) == (1, 6)  # together what num_gradients says
    torch.testing.assert_close(got[0].position, expected[0].position, rtol=0, atol=0)
    torch.testing.assert_close(got[0].energy, expected[0].energy, rtol=0, atol=0)
    torch.testing.assert_close(got[1].energy_change, expected[1].energy_change, rtol=0, atol=0)


def test_the_state_carries_the_energy_and_gradient_of_its_position():
    energy, step_size = TARGETS["double_well"]
    move = hmc.HMCKernel(energy.value_and_grad)
    state = move.init(energy.exact_sample(500))
    for _ in range(3):
        state, info = move.step(state, parameters(step_size))
    assert not info.is_accepted.all()  # rows of both kinds
    value, gradient = energy.value_and_grad(state.position)
    torch.testing.assert_close(state.energy, value)
    torch.testing.assert_close(state.gradient, gradient)


def test_jittered_lengths_have_the_mean_that_was_asked_for():
    move = hmc.HMCKernel(lambda x: (x, x), 10, jitter=0.5)
    lengths = [move.num_gradients(i) for i in range(1000)]
    assert (min(lengths), max(lengths)) == (5, 15)
    assert sum(lengths) / 1000 == pytest.approx(10, rel=0.02)


def test_a_chain_does_not_depend_on_its_batch():
    energy, step_size = TARGETS["rosenbrock"]
    move = hmc.HMCKernel(energy.value_and_grad, 5)
    start, momentum = energy.exact_sample(6), torch.randn(6, 2, dtype=torch.float64)
    log_u = torch.rand(6, dtype=torch.float64).log()
    together, _ = move.transition(move.init(start), parameters(step_size), momentum, log_u)
    for i in range(6):
        alone, _ = move.transition(move.init(start[[i]]), parameters(step_size), momentum[[i]], log_u[[i]])
        torch.testing.assert_close(alone.position[0], together.position[i], rtol=1e-12, atol=1e-12)
    order = torch.randperm(6)
    permuted, _ = move.transition(move.init(start[order]), parameters(step_size), momentum[order], log_u[order])
    torch.testing.assert_close(permuted.position, together.position[order])


def test_one_step_size_per_chain():
    energy = correlated_gaussian()
    move = hmc.HMCKernel(energy.value_and_grad, 5)
    start, momentum = move.init(energy.exact_sample(2)), torch.randn(2, 2, dtype=torch.float64)
    log_u, mass = torch.full((2,), -50.0, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    both = Parameters(torch.tensor([[0.1], [0.4]], dtype=torch.float64), mass)
    mixed, _ = move.transition(start, both, momentum, log_u)
    for i, step_size in enumerate((0.1, 0.4)):
        single, _ = move.transition(start, Parameters(torch.tensor(step_size).double(), mass), momentum, log_u)
        torch.testing.assert_close(single.position[i], mixed.position[i])


@pytest.mark.parametrize("fault", ["energy nan", "gradient nan", "energy inf", "energy -inf"])
def test_what_is_not_finite_is_rejected_and_counted(fault):
    broken = correlated_gaussian()

    def faulty(x):
        value, gradient = broken.value_and_grad(x)
        rows = torch.arange(len(x)) % 2 == 0  # every other chain
        wrong = {"energy nan": math.nan, "energy inf": math.inf, "energy -inf": -math.inf}.get(fault)
        if wrong is not None:
            value = value.where(~rows, wrong)
        else:
            gradient = gradient.where(~rows[:, None], math.nan)
        return value, gradient

    start = hmc.HMCKernel(broken.value_and_grad).init(broken.exact_sample(200))
    state, info = hmc.HMCKernel(faulty).step(start, parameters(0.3))
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


def test_a_truncated_normal_keeps_its_variance():
    """An energy of inf outside a box: no mass is lost, and none piles up at the wall."""

    def truncated(x):
        return (0.5 * x.square()).sum(-1).where((x.abs() <= 1).all(-1), math.inf), x

    u = torch.rand(200_000, 1, dtype=torch.float64)
    low, high = (torch.special.ndtr(torch.tensor(v, dtype=torch.float64)) for v in (-1.0, 1.0))
    move = hmc.HMCKernel(truncated, 5)
    state = move.init(torch.special.ndtri(low + u * (high - low)))
    for _ in range(5):
        state, _ = move.step(state, Parameters(torch.tensor(0.2).double(), torch.ones(1).double()))
    x = state.position.flatten()
    error = float(x.square().std()) / math.sqrt(len(x))
    assert abs(float(x.square().mean()) - 0.29112509) <= 4.5 * error
    assert len(x.unique()) == len(x)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_start_outside_the_support_is_refused(value):
    with pytest.raises(ValueError, match=r"chains \[1\] of 3 start outside"):
        hmc.HMCKernel(lambda x: (x.sum(-1), x)).init(torch.tensor([[0.0], [value], [1.0]]))
