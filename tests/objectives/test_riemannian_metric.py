"""The metric against its definition written with loops, and its gradients against autograd."""

import pytest
import torch

from vaebench.objectives.hamiltonian_steps import geometry
from vaebench.objectives.riemannian_metric import Along, RiemannianMetric, pack


def make(num=7, dim=3, dtype=torch.float64):
    torch.manual_seed(1)
    factor = torch.randn(num, dim, dim, dtype=dtype).tril()
    matrices = factor @ factor.mT
    return torch.randn(num, dim, dtype=dtype), matrices


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_inverse_is_the_sum_over_centroids(dim):
    centroids, matrices = make(dim=dim)
    metric = RiemannianMetric(centroids, pack(matrices), temperature=0.9, regularization=0.02)
    z = torch.randn(4, dim, dtype=torch.float64)
    for b in range(4):
        expected = 0.02 * torch.eye(dim, dtype=torch.float64)
        for c, m in zip(centroids, matrices, strict=True):
            expected = expected + m * torch.exp(-(c - z[b]).square().sum() / 0.9**2)
        torch.testing.assert_close(metric.inverse(z)[b], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_closed_form_gradient_of_log_det_equals_autograd(dim):
    centroids, matrices = make(dim=dim)
    metric = RiemannianMetric(centroids, pack(matrices), temperature=1.3, regularization=0.02)
    z = torch.randn(6, dim, dtype=torch.float64, requires_grad=True)
    value = torch.logdet(metric.inverse(z))
    (expected,) = torch.autograd.grad(value.sum(), z)
    torch.testing.assert_close(metric.log_det_inverse(z.detach()), value.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(geometry(z, metric).grad_log_det, expected, rtol=1e-10, atol=1e-12)


def test_pull_is_the_gradient_of_a_trace():
    centroids, matrices = make(dim=4)
    metric = RiemannianMetric(centroids, pack(matrices), temperature=1.3, regularization=0.02)
    z = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    square = torch.randn(6, 4, 4, dtype=torch.float64)
    square = square + square.mT
    (expected,) = torch.autograd.grad((square * metric.inverse(z)).sum(), z)
    torch.testing.assert_close(metric.pull(z.detach(), metric.weights(z.detach()), square), expected)


def test_pull_jacobian_is_that_of_autograd():
    centroids, matrices = make(dim=4)
    metric = RiemannianMetric(centroids, pack(matrices), temperature=1.3, regularization=0.02)
    z, v = torch.randn(2, 1, 4, dtype=torch.float64)

    def pulled(v):
        return metric.pull(z, metric.weights(z), v[..., :, None] * v[..., None, :])[0]

    def applied(z):
        return (metric.inverse(z) @ v[..., None])[0, :, 0]

    got = metric.pull_jacobian(z, metric.weights(z), v)[0]
    torch.testing.assert_close(torch.autograd.functional.jacobian(pulled, v)[:, 0], 2 * got)
    torch.testing.assert_close(torch.autograd.functional.jacobian(applied, z)[:, 0], got.mT)


def test_change_is_the_derivative_along_a_direction():
    centroids, matrices = make(dim=4)
    metric = RiemannianMetric(centroids, pack(matrices), temperature=1.3, regularization=0.02)
    z, direction = torch.randn(2, 6, 4, dtype=torch.float64)
    got = metric.change(metric.weights(z), metric.slopes(z, direction))
    _, expected = torch.autograd.functional.jvp(metric.inverse, z, direction)
    torch.testing.assert_close(got, expected)


def test_adjoint_is_that_of_autograd():
    torch.manual_seed(5)
    centroids, matrices = make(dim=4)
    centroids, packed = centroids.requires_grad_(), pack(matrices).requires_grad_()
    metric = RiemannianMetric(centroids, packed, temperature=1.3, regularization=0.02)
    z = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(6, 4, dtype=torch.float64)
    inner, outer = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    inner, outer = inner + inner.mT, outer + outer.mT
    inverse = metric.inverse(z)
    _, change = torch.autograd.functional.jvp(metric.inverse, z, direction, create_graph=True)
    weights = metric.weights(z).detach()
    for second in (False, True):
        value = (inner * inverse).sum() + ((outer * change).sum() if second else 0.0)
        expected = torch.autograd.grad(value, (z, centroids, packed), retain_graph=True)
        along = Along(outer, direction, metric.slopes(z, direction).detach()) if second else None
        with torch.no_grad():
            got = metric.adjoint(z, weights, inner, along)
        for g, e in zip(got, expected, strict=True):
            torch.testing.assert_close(g, e)


def test_far_from_every_centroid_only_the_regularization_is_left():
    centroids, matrices = make()
    metric = RiemannianMetric(centroids, pack(matrices), temperature=0.8, regularization=0.001)
    far = torch.full((1, 3), 1e3, dtype=torch.float64)
    torch.testing.assert_close(metric.inverse(far)[0], 0.001 * torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(metric.log_det_inverse(far), 3 * torch.tensor([0.001], dtype=torch.float64).log())
    assert geometry(far, metric).grad_log_det.abs().max() == 0


def test_without_centroids_the_metric_is_flat():
    metric = RiemannianMetric(torch.empty(0, 2), torch.empty(0, 3), 0.8, 0.01)
    assert torch.equal(metric.inverse(torch.randn(3, 2)), 0.01 * torch.eye(2).expand(3, 2, 2))


def test_single_precision_agrees_with_double_at_the_centroids():
    centroids, matrices = make(num=50, dim=10)
    double = RiemannianMetric(centroids, pack(matrices), 1.5, 0.01)
    single = RiemannianMetric(centroids.float(), pack(matrices).float(), 1.5, 0.01)
    log_det, log_det_f = double.log_det_inverse(centroids), single.log_det_inverse(centroids.float())
    grad, grad_f = geometry(centroids, double).grad_log_det, geometry(centroids.float(), single).grad_log_det
    torch.testing.assert_close(log_det_f.double(), log_det, rtol=1e-3, atol=2e-2)
    torch.testing.assert_close(grad_f.double(), grad, rtol=1e-2, atol=5e-2)


class _Largest(torch.utils._python_dispatch.TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.numel = max(self.numel, out.numel())
        return out


def test_nothing_of_size_batch_by_centroids_by_dim_squared_exists():
    centroids, matrices = make(num=400, dim=6, dtype=torch.float32)
    metric = RiemannianMetric(centroids, pack(matrices), 1.5, 0.01)
    z = torch.randn(50, 6)
    with _Largest() as largest:
        metric.adjoint(z, metric.weights(z), geometry(z, metric).matrix)
    assert largest.numel <= 50 * 400
