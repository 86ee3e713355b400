"""Trees against their definition, and faults that only this kernel can have. The protocol is elsewhere."""

from __future__ import annotations

import math

import pytest
import torch

from tests.mcmc.targets import TARGETS, parameters, step_size
from tests.mcmc.test_protocol import LIMIT, Record, flow_statistic, invariance
from vaebench.mcmc.chains import run_chains
from vaebench.mcmc.diagnostics import diagnose, verdict
from vaebench.mcmc.kernels import nuts
from vaebench.mcmc.kernels.hmc import leapfrog
from vaebench.mcmc.kernels.nuts import NUTSKernel, build
from vaebench.mcmc.state import Draw


def turns(momenta, inverse_mass) -> bool:
    """The criterion by its definition, for a whole trajectory of states in the order of time."""
    half = len(momenta) // 2

    def against(first, last, total):
        return min(float((first * inverse_mass) @ total), float((last * inverse_mass) @ total)) <= 0

    left, right = momenta[:half], momenta[half:]
    return (
        against(momenta[0], momenta[-1], momenta.sum(0))
        or against(left[0], right[0], left.sum(0) + right[0])
        or against(left[-1], right[-1], right.sum(0) + left[-1])
    )


def by_definition(momenta: dict, sides, inverse_mass, max_depth) -> tuple[int, int]:
    """The doublings that are kept and the states visited, from all momenta by number; 0 is the start."""
    low = high = visited = 0
    for depth in range(max_depth):
        size, is_later = 2**depth, bool(sides[depth] < 0.5)
        added = list(range(high + 1, high + size + 1)) if is_later else list(range(low - 1, low - size - 1, -1))
        for count in range(1, size + 1):
            visited += 1
            for k in range(1, depth + 1):
                if count % 2**k == 0:
                    part = sorted(added[count - 2**k : count])
                    if turns(torch.stack([momenta[i] for i in part]), inverse_mass):
                        return depth, visited
        low, high = min(low, *added), max(high, *added)
        if turns(torch.stack([momenta[i] for i in range(low, high + 1)]), inverse_mass):
            return depth + 1, visited
    return max_depth, visited


@pytest.mark.parametrize(
    ("name", "size", "block"), [("gaussian", 0.15, 8), ("double_well", 0.06, 4), ("rosenbrock", 0.02, 2)]
)
def test_trees_are_those_of_the_definition(name, size, block, monkeypatch):
    monkeypatch.setattr(nuts, "BLOCK", block)
    energy, kernel, record = TARGETS[name], NUTSKernel(6), Record()
    settings, start = parameters(size), kernel.init(energy.exact_sample(60), energy)
    _, info = kernel.step(start, energy, settings, record)
    noise, uniforms = record.drawn
    momentum = noise * settings.inverse_mass_matrix.rsqrt()
    momenta = [{0: p} for p in momentum]
    for sign in (1, -1):
        state, p = start, sign * momentum
        for number in range(1, 2**6):
            state, p = leapfrog(energy, state, p, settings, 1)
            for chain, found in enumerate(momenta):
                found[sign * number] = sign * p[chain]
    expected = [
        by_definition(found, uniforms[chain, :, 0], settings.inverse_mass_matrix, 6)
        for chain, found in enumerate(momenta)
    ]
    found = list(zip(info.statistics["depth"].tolist(), info.num_gradients.tolist(), strict=True))
    assert found == expected
    assert len({depth for depth, _ in expected}) >= 3
    assert any(visited not in (2**k - 1 for k in range(7)) for _, visited in expected)  # cut off inside a subtree


def test_each_subtree_turns_by_the_definition():
    torch.manual_seed(0)
    drift = torch.tensor([0.8, 0.0])
    p, inverse_mass = (torch.randn(8, 150, 2) + drift).double(), torch.tensor([0.5, 2.0]).double()
    expected = torch.zeros(8, 150, dtype=torch.bool)
    for size in (2, 4, 8):
        for start in range(0, 8, size):
            part = p[start : start + size]
            expected[start + size - 1] |= torch.tensor([turns(part[:, chain], inverse_mass) for chain in range(150)])
    assert torch.equal(nuts.turns_at(p, inverse_mass), expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_later_divergence_hides_no_turn(bad):
    p = torch.ones(8, 1, 2, dtype=torch.float64)
    p[1] = -2.0  # the first pair turns
    p[5:] = bad
    turned = nuts.turns_at(p, torch.ones(2, dtype=torch.float64))[:, 0].tolist()
    assert turned[:5] == [False, True, False, True, False]  # and so do the first four, back where they began


@pytest.mark.parametrize("block", [8, 2, 1])
def test_a_state_of_a_subtree_is_drawn_by_its_weight(block, monkeypatch):
    monkeypatch.setattr(nuts, "BLOCK", block)
    energy, settings = TARGETS["double_well"], parameters(0.15)
    num, num_leaves = 141, 4
    start = NUTSKernel().init(torch.tensor([[0.9, -0.2]], dtype=torch.float64), energy)
    p = torch.tensor([[0.1, -0.7]], dtype=torch.float64)
    h = [float(start.energy + nuts.kinetic_energy(p, settings.inverse_mass_matrix))]
    positions, state, q = [], start, p
    for _ in range(num_leaves):
        state, q = leapfrog(energy, state, q, settings, 1)
        positions.append(float(state.position[0, 0]))
        h.append(float(state.energy + nuts.kinetic_energy(q, settings.inverse_mass_matrix)))
    weights = torch.softmax(-torch.tensor(h[1:]), 0)
    n, start_energy = num * num, torch.tensor(h[:1], dtype=torch.float64)
    edge = torch.stack([start.position, p, start.gradient], 1).expand(n, -1, -1)
    u = (torch.arange(num, dtype=torch.float64) + 0.5) / num
    ones = torch.ones(n, 1, dtype=torch.float64)
    new = build(edge, start_energy.expand(n), energy, settings, ones, num_leaves, torch.cartesian_prod(u, u))
    assert new.is_whole.all()
    for x, weight in zip(positions, weights.tolist(), strict=True):
        assert abs(int(((new.position[:, 0] - x).abs() < 1e-9).sum()) - weight * n) <= 3 * num
    assert float(new.log_weight[0]) == pytest.approx(math.log(sum(math.exp(h[0] - v) for v in h[1:])))


FAULTS = {
    "cold noise": ("normal", lambda right, self, like: 0.95 * right(self, like)),
    "one uniform for all chains": ("uniform", lambda right, self, like: right(self, like[:1]).expand_as(like)),
    "always later": ("uniform", lambda right, self, like: right(self, like) * torch.tensor([0.0, 1.0, 1.0, 1.0])),
    "always the new subtree": (
        "uniform",
        lambda right, self, like: torch.cat([right(self, like)[..., :3], torch.ones_like(like[..., :1])], -1),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_protocol_sees_a_wrong_kernel(fault, monkeypatch):
    step_size("nuts", "double_well")  # found with the right kernel
    name, wrong = FAULTS[fault]
    right = getattr(Draw, name)
    monkeypatch.setattr(Draw, name, lambda self, like: wrong(right, self, like).to(like))
    assert invariance("nuts", "double_well", 5)[0] > LIMIT or flow_statistic("nuts", "double_well") > 75


def test_trees_that_are_cut_off_are_reported():
    energy = TARGETS["gaussian"]
    chains = run_chains(NUTSKernel(3), energy, energy.exact_sample(8), num_draws=20, num_warmup=0, step_size=0.02)
    report = diagnose(chains)
    assert report.kernel["tree depth (mean)"] == pytest.approx(3, abs=0.1)
    assert report.kernel["trees cut off"] > 0.9
    assert any("were cut off at 7 steps" in sentence and "max_depth" in sentence for sentence in verdict(report))
    whole = diagnose(run_chains(NUTSKernel(), energy, energy.exact_sample(8), num_draws=20, num_warmup=50))
    assert whole.kernel["trees cut off"] == 0
    assert not any("cut off" in sentence for sentence in verdict(whole))


@pytest.mark.parametrize("max_depth", [0, 2.5, 30])
def test_settings_out_of_range_are_refused(max_depth):
    with pytest.raises(ValueError, match="max_depth must be a whole number of at least 1 and at most 20"):
        NUTSKernel(max_depth)
