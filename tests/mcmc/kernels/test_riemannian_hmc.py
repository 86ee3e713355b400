"""The metric and its derivatives, the implicit integrator, and what a chain that is not solved becomes."""

from __future__ import annotations

import math

import pytest
import torch

from tests.mcmc.targets import TARGETS, Function, parameters
from tests.mcmc.test_protocol import LIMIT
from vaebench.energies.analytic.gaussian import GaussianEnergy
from vaebench.energies.base import ExactEnergy
from vaebench.energies.latent.manifold import ManifoldEnergy
from vaebench.mcmc.chains import run_chains
from vaebench.mcmc.diagnostics import diagnose, verdict
from vaebench.mcmc.kernels import riemannian_hmc
from vaebench.mcmc.kernels.hmc import leapfrog
from vaebench.mcmc.kernels.riemannian_hmc import Place, RiemannianHMCKernel, Work
from vaebench.mcmc.riemannian import Given, SoftAbs, divided_difference, hessian, softened, softened_slope
from vaebench.mcmc.state import Draw, Parameters
from vaebench.objectives.riemannian_metric import RiemannianMetric, pack


class OnALine(ManifoldEnergy, ExactEnergy):
    """The volume of a metric in one dimension, which can be drawn from on a grid."""

    num_dims = 1

    def __init__(self) -> None:
        torch.manual_seed(4)
        centroids = torch.randn(6, 1, dtype=torch.float64)
        matrices = pack(0.5 + torch.rand(6, 1, 1, dtype=torch.float64))
        super().__init__(RiemannianMetric(centroids, matrices, temperature=0.8, regularization=0.01))

    def exact_sample(self, num_samples):
        grid = torch.linspace(-8, 8, 40_001, dtype=torch.float64)
        cumulative = torch.exp(-self.energy(grid[:, None])).cumsum(0)
        u = torch.rand(num_samples, dtype=torch.float64) * cumulative[-1]
        return grid[torch.searchsorted(cumulative, u).clamp(max=40_000)][:, None] + 4e-4 * (torch.rand(1) - 0.5)


def place_of(kernel, energy, x) -> Place:
    state = kernel.init(x, energy)
    return Place(kernel, energy, state, Work(state.energy))


CASES = {
    "softabs on rosenbrock": (lambda: TARGETS["rosenbrock"], RiemannianHMCKernel(), 0.05),
    "softabs on a double well": (lambda: TARGETS["double_well"], RiemannianHMCKernel(alpha=2.0), 0.05),
    "the manifold's own": (OnALine, RiemannianHMCKernel(metric="target"), 0.1),
}


def test_softabs_is_the_absolute_value_of_a_matrix():
    values = torch.tensor([-3.0, -1e-7, 0.0, 1e-9, 0.4, 50.0], dtype=torch.float64)
    for alpha in (1.0, 100.0):
        expected = torch.tensor([v / math.tanh(alpha * v) if abs(alpha * v) > 1e-4 else 1 / alpha for v in values])
        torch.testing.assert_close(softened(values, alpha), expected.double(), rtol=1e-6, atol=1e-9)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    matrix, eye = (rotation * values) @ rotation.mT, torch.eye(6, dtype=torch.float64)
    metric = SoftAbs(matrix[None], 1e6)
    g_inverse = torch.stack([metric.velocity(e[None])[0] for e in eye], -1)
    root = torch.stack([metric.momentum(e[None])[0] for e in eye], -1)
    torch.testing.assert_close(g_inverse @ root @ root.mT, eye, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(torch.linalg.eigvalsh(root @ root.mT)[-2:], torch.tensor([3.0, 50.0]).double())
    assert float(metric.log_det) == pytest.approx(float(torch.linalg.slogdet(root @ root.mT)[1]), rel=1e-6)


def test_divided_differences_are_slopes_where_eigenvalues_meet():
    for alpha in (0.5, 30.0):
        values = torch.tensor([[-2.0, -1e-5, 0.0, 0.3, 0.3 + 1e-9, 0.3 + 1e-4, 4.0]], dtype=torch.float64)
        found = divided_difference(values, softened(values, alpha), alpha)[0]
        h = 1e-5
        for i, a in enumerate(values[0]):
            slope = (softened(a + h, alpha) - softened(a - h, alpha)) / (2 * h)
            assert float(softened_slope(a, alpha)) == pytest.approx(float(slope), abs=1e-6)
            for j, b in enumerate(values[0]):
                far = (a - b).abs() > 1e-3
                expected = (softened(a, alpha) - softened(b, alpha)) / (a - b) if far else softened_slope(b, alpha)
                assert float(found[i, j]) == pytest.approx(float(expected), abs=2e-4 if (a - b).abs() > 1e-6 else 1e-7)


@pytest.mark.parametrize("make", [lambda a: SoftAbs(a, 1.5), lambda a: Given(a @ a.mT + torch.eye(4).double())])
@pytest.mark.parametrize("matrix", ["generic", "equal eigenvalues"])
def test_sensitivities_are_derivatives(make, matrix):
    a = torch.randn(4, 4, dtype=torch.float64)
    a = a + a.mT if matrix == "generic" else 2 * torch.eye(4, dtype=torch.float64)
    p, change = torch.randn(1, 4, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)
    change, h = change + change.mT, 1e-5
    is_given = isinstance(make(a[None]), Given)
    at = [make((a + s * change)[None]).kinetic_energy(p, 1.7) for s in (h, -h)]
    if is_given:  # A is a a' + 1
        change = a @ change.mT + change @ a.mT
    found = (make(a[None]).sensitivity(p, 1.7) * change).sum()
    assert float(found) == pytest.approx(float((at[0] - at[1]) / (2 * h)), rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_forces_are_derivatives(case):
    make, kernel, _ = CASES[case]
    energy = make()
    x, h = energy.exact_sample(20), 1e-5
    p = torch.randn_like(x)
    force = place_of(kernel, energy, x).force(p, 1.3)
    for d in range(x.shape[1]):
        shift = torch.zeros_like(x)
        shift[:, d] = h
        up, down = (place_of(kernel, energy, x + s * shift).metric.kinetic_energy(p, 1.3) for s in (1, -1))
        torch.testing.assert_close(force[:, d], (up - down) / (2 * h), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_the_implicit_step_reverses_and_is_of_second_order(case):
    make, kernel, size = CASES[case]
    energy = make()
    start = energy.exact_sample(8)
    noise, errors, sizes = torch.randn_like(start), [], [size, size / 2, size / 4]
    for eps in sizes:
        place = begin = place_of(kernel, energy, start)
        momentum = p = begin.metric.momentum(noise)
        settings = parameters(eps, energy.num_dims)
        for _ in range(round(0.1 / eps)):
            place, p = kernel.generalised_leapfrog(place, p, settings)
        h = [w.state.energy + w.metric.kinetic_energy(q, 1.0) for w, q in ((begin, momentum), (place, p))]
        solved = begin.work.is_solved
        errors.append((h[1] - h[0]).abs())
        if eps != size / 2:
            continue
        q = -p
        for _ in range(round(0.1 / eps)):
            place, q = kernel.generalised_leapfrog(place, q, settings)
        solved = solved & begin.work.is_solved
        assert solved.sum() >= 5
        assert (place.state.position - start)[solved].abs().max() <= 1e-8
        assert (q + momentum)[solved].abs().max() <= 1e-7 * (1 + momentum[solved].abs().max())
        all_solved = solved
    slope = float((errors[-2][all_solved].median() / errors[-1][all_solved].median()).log2())
    assert 1.7 <= slope <= 2.3


@pytest.mark.parametrize("case", ["softabs on rosenbrock", "the manifold's own"])
def test_the_implicit_step_preserves_volume(case):
    make, kernel, size = CASES[case]
    energy = make()
    dims, h = energy.num_dims, 1e-4
    x = energy.exact_sample(3)
    z = torch.cat([x, place_of(kernel, energy, x).metric.momentum(torch.randn_like(x))], -1)

    def flow(z):
        place, p = kernel.generalised_leapfrog(
            place_of(kernel, energy, z[:, :dims]), z[:, dims:], parameters(size, dims)
        )
        return torch.cat([place.state.position, p], -1)

    columns = []
    for d in range(2 * dims):
        shift = torch.zeros_like(z)
        shift[:, d] = h
        columns.append((8 * (flow(z + shift) - flow(z - shift)) - flow(z + 2 * shift) + flow(z - 2 * shift)) / (12 * h))
    assert (torch.linalg.det(torch.stack(columns, -1)) - 1).abs().max() <= 1e-6


def test_on_a_gaussian_it_is_hmc_with_the_softened_precision_as_mass():
    precision = torch.tensor([0.3, 4.0], dtype=torch.float64)
    energy = GaussianEnergy(torch.zeros(2).double(), torch.diag(1 / precision))
    kernel, noise = RiemannianHMCKernel(alpha=0.8), torch.randn(7, 2, dtype=torch.float64)
    mass = precision / torch.tanh(0.8 * precision)
    place = place_of(kernel, energy, energy.exact_sample(7))
    p = place.metric.momentum(noise)
    torch.testing.assert_close(p, noise * mass.sqrt())
    settings = Parameters(torch.tensor(0.3).double(), 1 / mass)
    end, q = leapfrog(energy, place.state, p, settings, 3)
    for _ in range(3):
        place, p = kernel.generalised_leapfrog(place, p, settings)
    torch.testing.assert_close(place.state.position, end.position)
    torch.testing.assert_close(p, q)


def test_the_volume_of_a_metric_stays_invariant_along_it():
    energy, kernel = OnALine(), RiemannianHMCKernel(metric="target")
    start = energy.exact_sample(1500)
    state, info = kernel.step(kernel.init(start, energy), energy, parameters(0.5, 1), Draw())
    assert 0.5 < float(info.acceptance_probability.mean()) < 0.995
    for before, after in ((f(start), f(state.position)) for f in (torch.square, torch.sin, energy.energy)):
        change = after.flatten() - before.flatten()
        assert abs(float(change.mean())) <= LIMIT * float(change.std()) / math.sqrt(1500)


def test_gradients_are_counted_for_one_chain(monkeypatch):
    """A Hessian of D dimensions counts as D, a force as D, and an energy with its gradient as 1."""
    calls = {"hessians": 0, "pulls": 0}
    pull = Place._pull

    def counted_hessian(energy, x, *, keep):
        calls["hessians"] += len(x)
        return hessian(energy, x, keep=keep)

    def counted_pull(self, sensitivity):
        calls["pulls"] += 1
        return pull(self, sensitivity)

    monkeypatch.setattr(riemannian_hmc, "hessian", counted_hessian)
    monkeypatch.setattr(Place, "_pull", counted_pull)
    energy, kernel = TARGETS["double_well"], RiemannianHMCKernel(num_leapfrog=4, jitter=0.0)
    _, info = kernel.step(kernel.init(energy.exact_sample(1), energy), energy, parameters(0.05), Draw())
    assert int(info.num_gradients) == 2 * (calls["hessians"] + calls["pulls"]) + 4


def test_steps_that_cannot_be_solved_are_rejected_counted_and_reported():
    energy = TARGETS["double_well"]
    kernel = RiemannianHMCKernel(max_iterations=20)
    state = kernel.init(energy.exact_sample(40), energy)
    moved, info = kernel.step(state, energy, parameters(0.2), Draw())
    is_unsolved = info.statistics["is_unsolved"]
    assert 5 < int(is_unsolved.sum()) < 39
    assert torch.equal(moved.position[is_unsolved], state.position[is_unsolved])
    assert (info.acceptance_probability[is_unsolved] == 0).all()
    assert info.is_divergent[is_unsolved].all()
    chains = run_chains(RiemannianHMCKernel(), energy, energy.exact_sample(4), num_draws=4, num_warmup=0, step_size=1.5)
    report = diagnose(chains)
    assert report.kernel["trajectories not solved"] > 0.5
    assert report.num_divergences >= 8
    assert any("could not be solved" in sentence for sentence in verdict(report))


def test_a_step_that_comes_back_elsewhere_is_not_solved(monkeypatch):
    """An equation may have several solutions: one that is not found from its other end would break detailed balance."""
    energy, kernel, drift, calls = TARGETS["gaussian"], RiemannianHMCKernel(), Place.drift, []

    def elsewhere(self, p, eps):
        calls.append(1)
        shift = torch.tensor([[1e-3], [0.0]], dtype=torch.float64)
        return drift(self, p, eps) + (shift if len(calls) == 2 else 0.0)

    monkeypatch.setattr(Place, "drift", elsewhere)
    place = place_of(kernel, energy, energy.exact_sample(2))
    kernel.generalised_leapfrog(place, torch.randn(2, 2).double(), parameters(0.1))
    assert place.work.is_solved.tolist() == [False, True]


def test_what_has_no_second_derivatives_or_metric_is_refused():
    flat = Function(lambda x: (x.detach().sum(-1), torch.ones_like(x)))
    kernel = RiemannianHMCKernel()
    with pytest.raises(ValueError, match="forward can be differentiated twice, got Function"):
        kernel.step(kernel.init(torch.zeros(2, 2), flat), flat, parameters(0.1, dtype=torch.float32), Draw())
    with pytest.raises(ValueError, match="metric=target needs an energy with a metric of its own"):
        RiemannianHMCKernel(metric="target").init(torch.zeros(2, 2).double(), TARGETS["gaussian"])
    for settings in ({"alpha": 0.0}, {"max_iterations": 0}, {"num_leapfrog": 0}, {"jitter": 2.0}):
        with pytest.raises(ValueError, match=f"{next(iter(settings))} must be"):
            RiemannianHMCKernel(**settings)


def test_a_linear_energy_has_no_hessian():
    energy = Function(lambda x: (x.sum(-1), torch.ones_like(x)))
    x = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.equal(hessian(energy, x, keep=True), torch.zeros(3, 2, 2).double())
