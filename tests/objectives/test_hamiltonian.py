"""The integrator is reversible, preserves volume, has order 2, and its gradients are those of finite differences."""

import math

import pytest
import torch

from vaebench.objectives.hamiltonian import draw_momentum, generalised_leapfrog, momentum_log_prob, point
from vaebench.objectives.riemannian_metric import RiemannianMetric, log_det, pack

DIM = 3


@pytest.fixture
def metric():
    torch.manual_seed(2)
    factor = torch.randn(6, DIM, DIM, dtype=torch.float64).tril()
    return RiemannianMetric(torch.randn(6, DIM, dtype=torch.float64), pack(factor @ factor.mT), 1.5, 0.1)


def potential(z):
    return z + 0.3 * torch.cos(z), 0.5 * z.square().sum(-1) + 0.3 * z.sin().sum(-1)


def energy(z, rho, metric):
    inverse = metric.inverse(z)
    kinetic = 0.5 * (rho * (inverse @ rho[..., None])[..., 0]).sum(-1)
    return 0.5 * z.square().sum(-1) + 0.3 * z.sin().sum(-1) - 0.5 * torch.logdet(inverse) + kinetic


def flow(z, rho, steps, step_size, metric, tolerance=None):
    at = point(z, potential, metric)
    for _ in range(steps):
        at, rho, refused = generalised_leapfrog(at, rho, step_size, metric, potential, tolerance)
        assert not refused.any()
    return at.z, rho


def test_reverses(metric):
    z, rho = torch.randn(2, 20, DIM, dtype=torch.float64)
    with torch.no_grad():
        there, momentum = flow(z, rho, 20, 0.05, metric)
        back, momentum = flow(there, -momentum, 20, 0.05, metric)
    assert (there - z).abs().max() > 0.1
    assert (back - z).abs().max() < 1e-8
    assert (momentum + rho).abs().max() < 1e-8


def test_preserves_volume(metric):
    z, rho = 0.5 * torch.randn(2, DIM, dtype=torch.float64)

    def step(phase):
        end, momentum = flow(phase[None, :DIM], phase[None, DIM:], 3, 0.1, metric)
        return torch.cat([end, momentum], -1)[0]

    phase = torch.cat([z, rho])
    jacobian = torch.stack(
        [(step(phase + 1e-5 * e) - step(phase - 1e-5 * e)) / 2e-5 for e in torch.eye(2 * DIM, dtype=torch.float64)], 1
    )
    assert abs(torch.linalg.det(jacobian).item() - 1) < 1e-8
    assert (jacobian - torch.eye(2 * DIM, dtype=torch.float64)).abs().max() > 0.05  # it moved
    by_adjoint = torch.autograd.functional.jacobian(step, phase)
    torch.testing.assert_close(by_adjoint, jacobian, rtol=1e-6, atol=1e-7)


def test_energy_error_is_of_order_two(metric):
    torch.manual_seed(3)
    z, rho = 0.7 * torch.randn(2, 50, DIM, dtype=torch.float64)
    start = energy(z, rho, metric)
    errors = []
    sizes = [0.05, 0.025, 0.0125]
    with torch.no_grad():
        for size in sizes:
            end = flow(z, rho, round(0.5 / size), size, metric)
            errors.append((energy(*end, metric) - start).abs().mean().log().item())
    slope = (errors[0] - errors[-1]) / (math.log(sizes[0]) - math.log(sizes[-1]))
    assert 1.9 < slope < 2.1


def test_momentum_has_the_covariance_of_the_metric_over_beta(metric):
    z = torch.randn(1, DIM, dtype=torch.float64)
    n, beta = 100_000, 0.09
    at = point(z.expand(n, DIM), potential, metric)
    rho, _ = draw_momentum(at, torch.randn(n, DIM, dtype=torch.float64), metric, beta)
    expected = torch.linalg.inv(metric.inverse(z))[0] / beta
    got = rho.mT @ rho / n
    scale = expected.diagonal().sqrt()
    # Entry (i, j) of a sample covariance has a standard error of at most sqrt(2 / n) s_i s_j.
    assert ((got - expected).abs() / (scale[:, None] * scale)).max() < 4.5 * math.sqrt(2 / n)


def test_momentum_log_prob_is_the_gaussian_with_every_constant(metric):
    z = torch.randn(5, DIM, dtype=torch.float64)
    rho = torch.randn(5, DIM, dtype=torch.float64)
    at = point(z, potential, metric)
    for beta in (1.0, 0.09):
        covariance = torch.linalg.inv(metric.inverse(z)) / beta
        exact = torch.distributions.MultivariateNormal(torch.zeros(DIM, dtype=torch.float64), covariance).log_prob(rho)
        torch.testing.assert_close(momentum_log_prob(rho, at, metric, beta), exact)
        drawn, log_prob = draw_momentum(at, torch.randn_like(z), metric, beta)
        torch.testing.assert_close(log_prob, momentum_log_prob(drawn, at, metric, beta))


def test_log_det_of_a_factor():
    a = torch.randn(4, 5, 5, dtype=torch.float64)
    a = a @ a.mT + torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(log_det(torch.linalg.cholesky(a)), torch.logdet(a))


def test_refused_steps_and_taken_ones_are_one_bijection(metric):
    # Steps so long that some have no solution. What was taken comes back; what was refused turns round in its place.
    torch.manual_seed(9)
    z, rho = torch.randn(400, DIM, dtype=torch.float64), 6 * torch.randn(400, DIM, dtype=torch.float64)
    with torch.no_grad():
        start = point(z, potential, metric)
        end, momentum, refused = generalised_leapfrog(start, rho, 0.5, metric, potential)
        back, final, refused_back = generalised_leapfrog(end, -momentum, 0.5, metric, potential)
    assert 20 < refused.sum() < 380
    assert torch.equal(end.z[refused], z[refused])
    assert torch.equal(momentum[refused], -rho[refused])
    assert torch.equal(refused, refused_back)
    torch.testing.assert_close(back.z, z, rtol=0, atol=1e-7)
    torch.testing.assert_close(final, -rho, rtol=0, atol=1e-7)


def test_a_step_alone_is_as_reversible_as_one_in_a_batch():
    # Alone, an easy step is taken without solving for the way back; in a batch, hard ones beside it have all checked.
    torch.manual_seed(0)
    factor = 2 * torch.randn(6, 1, 1, dtype=torch.float64)
    metric = RiemannianMetric(torch.randn(6, 1, dtype=torch.float64), pack(factor @ factor.mT), 0.5, 0.5)
    with torch.no_grad():
        start = point(torch.randn(60, 1, dtype=torch.float64), potential, metric)
        rho, _ = draw_momentum(start, torch.randn(60, 1, dtype=torch.float64), metric)
        _, _, refused = generalised_leapfrog(start, rho, 0.6, metric, potential)
        for i in range(len(rho)):
            alone = point(start.z[i : i + 1], potential, metric)
            end, momentum, is_refused = generalised_leapfrog(alone, rho[i : i + 1], 0.6, metric, potential)
            assert is_refused.item() == refused[i].item()
            back, final, _ = generalised_leapfrog(end, -momentum, 0.6, metric, potential)
            torch.testing.assert_close(back.z, alone.z, rtol=1e-7, atol=1e-7)
            torch.testing.assert_close(final, -rho[i : i + 1], rtol=1e-7, atol=1e-7)


def test_steps_preserve_the_measure_where_some_are_refused():
    # For an involution that keeps volume, E[exp(-dH) - 1] over |dH| < c is zero on exact draws from exp(-H); without
    # the cut, the few trajectories of large weight would dominate the error.
    torch.manual_seed(2)
    factor = 2 * torch.randn(6, DIM, DIM, dtype=torch.float64).tril()
    metric = RiemannianMetric(torch.randn(6, DIM, dtype=torch.float64), pack(factor @ factor.mT), 0.5, 0.5)
    z, noise = torch.randn(2, 20_000, DIM, dtype=torch.float64)

    def harmonic(z):
        return z, 0.5 * z.square().sum(-1)

    def energy(at, rho):
        return at.value - momentum_log_prob(rho, at, metric)

    with torch.no_grad():
        start = point(z, harmonic, metric)
        rho, _ = draw_momentum(start, noise, metric)
        end, momentum, refused = generalised_leapfrog(start, rho, 0.3, metric, harmonic)
        change = energy(end, momentum) - energy(start, rho)
    assert 0.05 < refused.double().mean() < 0.3
    gain = torch.where(change.abs() < 2, torch.exp(-change) - 1, 0.0)
    assert gain.abs().mean() > 0.02
    assert gain.mean().abs() < 4.5 * gain.std() / math.sqrt(len(gain))


def test_gradients_stay_finite_where_steps_are_refused(metric):
    z = torch.randn(100, DIM, dtype=torch.float64, requires_grad=True)
    rho = 6 * torch.randn(100, DIM, dtype=torch.float64)
    end, momentum, refused = generalised_leapfrog(point(z, potential, metric), rho, 0.5, metric, potential)
    assert refused.any()
    (grad,) = torch.autograd.grad((end.z.sum() + momentum.square().sum()), z)
    assert grad.isfinite().all()
