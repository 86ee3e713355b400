"""DCI and SAP, which fit predictors of the factors on the training split."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.metrics.codes import measured, transparent
from vaebench.data.dataset import Dataset
from vaebench.metrics.base import NotApplicableError
from vaebench.metrics.dci import DCI, completeness, concentration, disentanglement
from vaebench.metrics.sap import SAP


def judged(metric, z, factors, test_fraction=0.3):
    data = Dataset.from_tensors(z, factors=factors, scale=1, test_fraction=test_fraction)
    return metric(transparent(z.shape[1]), data.test, dataset=data, batch_size=1000)


def binary_factors(n=600, number=3):
    return torch.randint(2, (n, number), generator=torch.Generator().manual_seed(0))


def test_concentration_by_hand():
    rows = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [3.0, 1.0]]).double()
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert concentration(rows).tolist() == pytest.approx([1, 0, 0, 1 - entropy])


def test_disentanglement_and_completeness_differ():
    # One code serves both factors; the other codes serve nobody.
    one_for_two = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]).double()
    assert disentanglement(one_for_two) == pytest.approx(0)
    assert completeness(one_for_two) == pytest.approx(1)
    two_for_one = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]).double()
    assert disentanglement(two_for_one) == pytest.approx(1)
    # The first factor is spread over two of three codes: 1 - log 2 / log 3; each factor has half of the weight.
    assert completeness(two_for_one) == pytest.approx(0.5 * (1 - math.log(2) / math.log(3)) + 0.5)


@pytest.mark.parametrize(("trees", "name"), [("gradient_boosting", "dci"), ("random_forest", "dci_forest")])
def test_a_perfect_and_a_random_code(trees, name):
    factors = binary_factors()
    found = judged(DCI(trees), factors.float() + 0.01 * torch.randn(600, 3), factors).values
    assert min(estimate.value for estimate in found.values()) > 0.98
    assert set(found) == {f"{name}_{part}" for part in ("disentanglement", "completeness", "informativeness")}
    found = judged(DCI(trees), torch.randn(600, 3), factors).values
    assert found[f"{name}_disentanglement"].value < 0.1
    assert found[f"{name}_completeness"].value < 0.1
    assert found[f"{name}_informativeness"].value == pytest.approx(0.5, abs=5 * math.sqrt(0.25 / 540))


def test_sap_of_a_perfect_code_of_two_values_is_one_half():
    """The best code tells the factor, the second guesses: 1 - 1/2."""
    factors = binary_factors(2000)
    found = judged(SAP(), factors.float() + 0.01 * torch.randn(2000, 3), factors)
    estimate = found.values["sap"]
    # The better of two guessing codes is a little above one half.
    assert estimate.value == pytest.approx(0.5, abs=0.06)
    assert np.diag(found.details["score_per_code_and_factor"]).min() == 1
    assert estimate.standard_error < 0.05


def test_sap_of_a_random_or_doubled_code_is_near_zero():
    factors = binary_factors(2000)
    assert judged(SAP(), torch.randn(2000, 3), factors).values["sap"].value < 0.05
    doubled = torch.cat([factors, factors], 1).float() + 0.01 * torch.randn(2000, 6)
    assert judged(SAP(), doubled, factors).values["sap"].value == pytest.approx(0, abs=1e-9)


def test_what_has_no_meaning_is_said():
    factors = binary_factors(60)
    with pytest.raises(NotApplicableError, match="fitted to the train split"):
        measured(SAP(), torch.randn(60, 2), factors)
    with pytest.raises(NotApplicableError, match="fewer than two codes"):
        judged(DCI("random_forest"), torch.randn(60, 1), factors)
    with pytest.raises(ValueError, match="trees must be gradient_boosting or random_forest; got 'oak'"):
        DCI("oak")
