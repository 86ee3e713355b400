"""Each piece of a flow: its gradients in closed form against finite differences, in everything that it depends on."""

import pytest
import torch
from torch.autograd import gradcheck

from vaebench.objectives.hamiltonian import Point, drift, half_kick
from vaebench.objectives.hamiltonian_steps import (
    DrawMomentum,
    ImplicitDrift,
    ImplicitKick,
    Kick,
    LogDensity,
    _solve_adjoint,
    geometry,
)
from vaebench.objectives.riemannian_metric import RiemannianMetric, pack

DIM, ROWS = 3, 4


def inputs(scale=1.0):
    """z, centroids, packed matrices and two more of the shape of z, in double precision."""
    torch.manual_seed(11)
    factor = torch.randn(5, DIM, DIM, dtype=torch.float64).tril()
    z, first, second = torch.randn(3, ROWS, DIM, dtype=torch.float64)
    centroids = torch.randn(5, DIM, dtype=torch.float64)
    tensors = z, centroids, pack(factor @ factor.mT), first, scale * second
    return [tensor.requires_grad_() for tensor in tensors]


def metric_of(centroids, matrices):
    return RiemannianMetric(centroids, matrices, 1.2, 0.1)


def test_draw_of_a_momentum():
    z, centroids, matrices, noise, _ = inputs()

    def draw(z, centroids, matrices):
        metric = metric_of(centroids, matrices)
        return DrawMomentum.apply(z, centroids, matrices, noise.detach(), 0.3, geometry(z, metric), metric)

    assert gradcheck(draw, (z, centroids, matrices))


def test_log_density_of_a_momentum():
    z, centroids, matrices, rho, _ = inputs()

    def log_density(z, centroids, matrices, rho):
        metric = metric_of(centroids, matrices)
        return LogDensity.apply(z, centroids, matrices, rho, 0.3, geometry(z, metric), metric)

    assert gradcheck(log_density, (z, centroids, matrices, rho))


def test_kick():
    def kick(z, centroids, matrices, grad_potential, rho):
        metric = metric_of(centroids, matrices)
        return Kick.apply(z, centroids, matrices, grad_potential, rho, 0.2, geometry(z, metric), metric)

    assert gradcheck(kick, inputs())


@pytest.mark.parametrize(("half", "is_easy"), [(0.05, True), (0.4, False)])
def test_implicit_kick_where_it_is_easy_and_where_newton_steps_were_needed(half, is_easy):
    def kick(z, centroids, matrices, grad_potential, rho):
        metric = metric_of(centroids, matrices)
        here = geometry(z, metric)
        found = half_kick(Point(z, grad_potential, z, here), rho, half, metric, None)
        assert found.is_solved.all()
        assert found.is_easy == is_easy
        return ImplicitKick.apply(z, centroids, matrices, grad_potential, rho, half, here, metric, found.x, found.mask)

    assert gradcheck(kick, inputs())


@pytest.mark.parametrize(("half", "is_easy"), [(0.05, True), (0.3, False)])
def test_implicit_drift_where_it_is_easy_and_where_newton_steps_were_needed(half, is_easy):
    z, centroids, matrices, _, rho = inputs()

    def move(z, centroids, matrices, rho):
        metric = metric_of(centroids, matrices)
        here = geometry(z, metric)
        found = drift(here, rho.detach(), half, metric, None)
        assert found.is_solved.all()
        assert found.is_easy == is_easy
        there = geometry(found.x, metric)
        return ImplicitDrift.apply(z, centroids, matrices, rho, half, here, there, metric, found.mask)

    assert gradcheck(move, (z, centroids, matrices, rho))


def test_rows_without_a_root_do_not_spoil_the_others():
    z, centroids, matrices, grad_potential, rho = inputs()
    metric = metric_of(centroids, matrices)
    here = geometry(z, metric)
    found = half_kick(Point(z, grad_potential, z, here), 8 * rho.detach(), 0.6, metric, None)
    assert 0 < found.is_solved.sum() < ROWS
    out = ImplicitKick.apply(z, centroids, matrices, grad_potential, rho, 0.6, here, metric, found.x, found.mask)
    grads = torch.autograd.grad(out[found.is_solved].sum(), (z, centroids, matrices, rho))
    assert all(grad.isfinite().all() for grad in grads)


def test_an_adjoint_is_solved_directly_where_iterating_does_not_get_there():
    jacobian = torch.diag_embed(torch.tensor([[-3.0, 0.5], [1.0, 1.0]], dtype=torch.float64))
    grad = torch.tensor([[1.0, 2.0], [0.0, 0.0]], dtype=torch.float64)

    def solved(is_solved):
        return _solve_adjoint(grad, lambda v: (jacobian.mT @ v[..., None])[..., 0], lambda: jacobian, is_solved)

    expected = torch.tensor([0.25, 4.0], dtype=torch.float64)
    torch.testing.assert_close(solved(torch.tensor([True, False]))[0], expected)
    assert solved(torch.tensor([True, False]))[1].tolist() == [0, 0]  # I - J is singular where there is no root
    grad, jacobian = grad[:1], jacobian[:1]
    torch.testing.assert_close(solved(None)[0], expected)


def test_a_second_derivative_is_an_error_and_not_a_wrong_number():
    z, centroids, matrices, rho, _ = inputs()
    metric = metric_of(centroids, matrices)
    log_density = LogDensity.apply(z, centroids, matrices, rho, 1.0, geometry(z, metric), metric)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.grad(log_density.sum(), z, create_graph=True)


def test_pieces_leave_no_cycle_behind():
    # A graph that holds its own output would live until the garbage collector comes, and with it all of a batch.
    import gc
    import weakref

    z, centroids, matrices, grad_potential, rho = inputs()
    metric = metric_of(centroids, matrices)
    here = geometry(z, metric)
    gc.collect()
    gc.disable()
    try:
        found = half_kick(Point(z, grad_potential, z, here), rho, 0.05, metric, None)
        p = ImplicitKick.apply(z, centroids, matrices, grad_potential, rho, 0.05, here, metric, found.x, found.mask)
        end = drift(here, p.detach(), 0.05, metric, None)
        there = geometry(end.x, metric)
        moved = ImplicitDrift.apply(z, centroids, matrices, p, 0.05, here, there, metric, end.mask)
        nodes = [weakref.ref(p.grad_fn), weakref.ref(moved.grad_fn)]
        del found, p, end, there, moved
        assert [node() for node in nodes] == [None, None]
    finally:
        gc.enable()
