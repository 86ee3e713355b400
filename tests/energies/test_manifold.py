from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vaebench.energies.latent import manifold
from vaebench.energies.latent.manifold import ManifoldEnergy
from vaebench.objectives.riemannian_metric import RiemannianMetric, pack


def metric(num_centroids: int, num_dims: int) -> RiemannianMetric:
    centroids = torch.randn(num_centroids, num_dims, dtype=torch.float64)
    factor = torch.tril(0.5 * torch.randn(num_centroids, num_dims, num_dims)).double() + torch.eye(num_dims)
    return RiemannianMetric(centroids, pack(factor @ factor.mT), temperature=0.8, regularization=0.01)


@pytest.mark.parametrize("whole", [0, 10_000])
@pytest.mark.parametrize("num_dims", [1, 2, 5])
def test_inside_the_ball_it_is_the_metrics_volume(num_dims, whole, monkeypatch):
    monkeypatch.setattr(manifold, "WHOLE", whole)  # matrices without their upper entries, and with them
    learned = metric(30, num_dims)
    energy = ManifoldEnergy(learned)
    x = (learned.centroids + 0.2 * torch.randn_like(learned.centroids)).requires_grad_()
    dense = -0.5 * torch.logdet(learned.inverse(x))  # the definition
    (gradient,) = torch.autograd.grad(dense.sum(), x)
    torch.testing.assert_close(energy.value_and_grad(x), (dense.detach(), gradient))
    torch.testing.assert_close(energy.energy(x), dense)


def test_rows_do_not_depend_on_how_many_there_are():
    energy = ManifoldEnergy(metric(30, 3))
    x = energy.start(7)
    together = energy.gradient(x)
    for rows in (slice(0, 2), slice(2, 3), slice(0, 7)):
        torch.testing.assert_close(energy.gradient(x[rows]), together[rows])


def test_its_gradient_is_detached_from_the_point_and_from_the_metric():
    learned = metric(30, 3)
    learned.centroids.requires_grad_()
    learned.matrices.requires_grad_()
    energy = ManifoldEnergy(learned)
    x = energy.start(5).detach().requires_grad_()
    value, gradient = energy.value_and_grad(x)
    assert not value.requires_grad
    assert not gradient.requires_grad
    assert not energy.gradient(x).requires_grad


def test_outside_the_ball_it_rises_with_the_square_of_the_distance_in_widths():
    learned = metric(10, 3)
    energy = ManifoldEnergy(learned)
    radius = learned.centroids.norm(dim=-1).max() + 0.8
    direction = torch.nn.functional.normalize(torch.randn(5, 3, dtype=torch.float64), dim=-1)
    for distance in (0.0, 0.4, 3.0):
        x = (radius + distance) * direction
        expected = 0.5 * (distance / 0.8) ** 2 - 0.5 * torch.logdet(learned.inverse(x))
        torch.testing.assert_close(energy.energy(x), expected)
        torch.testing.assert_close(energy.value_and_grad(x)[0], expected)


def test_the_density_has_finite_mass():
    learned = metric(10, 2)
    energy = ManifoldEnergy(learned)
    masses = []
    for reach in (10.0, 20.0):
        axis = torch.linspace(-reach, reach, 801, dtype=torch.float64)
        points = torch.cartesian_prod(axis, axis)
        masses.append(float(torch.exp(-energy.energy(points)).sum() * (axis[1] - axis[0]) ** 2))
    assert masses[0] == pytest.approx(masses[1], rel=1e-3)


def test_starts_are_centroids():
    learned = metric(10, 3)
    start = ManifoldEnergy(learned).start(50)
    assert torch.cdist(start, learned.centroids).amin(1).max() < 1e-6


def test_a_metric_without_centroids_is_refused():
    empty = RiemannianMetric(torch.zeros(0, 2), torch.zeros(0, 3), temperature=0.8, regularization=0.01)
    with pytest.raises(ValueError, match="train the model"):
        ManifoldEnergy(empty)


class _Names(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_the_gradient_alone_computes_no_energy():
    energy = ManifoldEnergy(metric(30, 3))
    x = energy.start(5)
    with _Names() as alone:
        energy.gradient(x)
    with _Names() as both:
        energy.value_and_grad(x)
    assert "log" in both.names
    assert "log" not in alone.names
    assert len(alone.names) < len(both.names)
