from __future__ import annotations

import math

import pytest
import torch

from tests.metrics.codes import measured
from vaebench.data.xy_squares import all_factors
from vaebench.metrics.base import NotApplicableError
from vaebench.metrics.histograms import discretize, entropy, mutual_information
from vaebench.metrics.mig import MIG


def test_a_perfect_code_scores_one():
    factors = all_factors()
    z = factors.double() * torch.tensor([1.0, -2.0, 0.1, 5.0, 1.0, 1.0]) + 3
    found = measured(MIG(), z, factors).values["mig"]
    assert found.value == pytest.approx(1, abs=1e-9)
    assert found.standard_error < 1e-6


def test_a_random_code_scores_near_zero():
    factors = all_factors()
    found = measured(MIG(), torch.randn(len(factors), 10), factors).values["mig"]
    assert 0 <= found.value < 0.01


def test_a_factor_known_twice_has_no_gap():
    factors = torch.randint(0, 4, (4000, 2))
    z = torch.cat([factors, factors[:, :1]], 1).double()  # the first factor twice, the second once
    found = measured(MIG(), z, factors)
    assert found.details["gap_per_factor"]["0"] == pytest.approx(0, abs=1e-12)
    assert found.details["gap_per_factor"]["1"] == pytest.approx(1, abs=0.01)
    assert found.values["mig"].value == pytest.approx(0.5, abs=0.01)


def test_one_dimension_has_no_second():
    factors = torch.randint(0, 3, (999, 1))
    assert measured(MIG(), factors.double(), factors).values["mig"].value == pytest.approx(1)


def test_a_factor_that_does_not_vary_is_left_out():
    factors = torch.stack([torch.arange(90) % 3, torch.zeros(90)], 1).long()
    found = measured(MIG(), factors.double(), factors)
    assert found.values["mig"].value == pytest.approx(1)
    assert found.details["gap_per_factor"]["1"] is None
    with pytest.raises(NotApplicableError, match="no factor varies"):
        measured(MIG(), factors.double(), torch.zeros(90, 2).long())


def test_information_by_hand():
    a = torch.tensor([[0], [0], [1], [1]])
    b = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])
    found = mutual_information(a, b)
    assert found[0].tolist() == pytest.approx([0, math.log(2)])
    assert entropy(b).tolist() == pytest.approx([math.log(2), math.log(2)])
    skewed = torch.tensor([[0], [0], [0], [1]])
    assert entropy(skewed)[0].item() == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))


def test_bins_have_equal_width():
    z = torch.tensor([[0.0, 7.0], [0.49, 7.0], [0.51, 7.0], [1.0, 7.0]])
    assert discretize(z, 2).tolist() == [[0, 0], [0, 0], [1, 0], [1, 0]]
    assert discretize(torch.tensor([[0.0], [0.33], [1.0]]), 4)[:, 0].tolist() == [0, 1, 3]


def test_data_without_factors_are_refused():
    with pytest.raises(NotApplicableError, match="without their ground-truth factors"):
        measured(MIG(), torch.randn(50, 2), None)
