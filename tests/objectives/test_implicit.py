"""Implicit equations: solved by iteration where that contracts, by Newton steps elsewhere, or marked as unsolved."""

import math

import pytest
import torch

from vaebench.objectives.implicit import solve


def test_a_contraction_is_solved_to_the_tolerance():
    torch.manual_seed(4)
    a, b = 0.3 * torch.randn(3, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)

    def update(x):
        return torch.tanh(x @ a) + b

    solution = solve(update, torch.zeros_like(b), lambda x: (1 - torch.tanh(x @ a).square())[..., None] * a.mT)
    assert (update(solution.x) - solution.x).abs().max() < 1e-11
    assert solution.is_solved.all()


def test_what_has_no_solution_is_marked_and_left():
    start = torch.tensor([[1.0], [0.1]])
    solution = solve(lambda x: x.square() + torch.tensor([[1.0], [0.1]]), start, lambda x: 2 * x[..., None])
    assert solution.is_solved.tolist() == [False, True]
    assert solution.x[0] == 1.0
    assert solution.x[1].item() == pytest.approx(0.5 - math.sqrt(0.15), abs=1e-5)
    assert solution.mask is solution.is_solved


def test_solves_where_the_update_is_no_contraction():
    solution = solve(lambda x: -2 * x + 1, torch.ones(1, 2), lambda x: -2 * torch.eye(2)[None])
    torch.testing.assert_close(solution.x, torch.full((1, 2), 1 / 3))
    assert not solution.is_easy


def test_what_is_not_finite_passes_through():
    solution = solve(lambda x: 0.1 * x, torch.full((1, 2), torch.nan), lambda x: 0.1 * torch.eye(2)[None])
    assert solution.x.isnan().all()
