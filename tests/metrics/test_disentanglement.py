"""Scores of disentanglement on perfect, random and rotated codes."""

from __future__ import annotations

import math

import pytest
import torch

from tests.metrics.codes import measured
from vaebench.data.xy_squares import all_factors
from vaebench.metrics.base import NotApplicableError
from vaebench.metrics.beta_vae_score import BetaVAEScore
from vaebench.metrics.factor_vae_score import FactorVAEScore
from vaebench.metrics.modularity import Modularity, modularities
from vaebench.metrics.votes import Sharing

FACTORS = all_factors()
CASES = [
    (Modularity(), "modularity"),
    (FactorVAEScore(500, 500), "factor_vae_score"),
    (BetaVAEScore(1000, 500, 32), "beta_vae_score"),
]


@pytest.mark.parametrize(("metric", "name"), CASES)
def test_a_perfect_code_scores_one(metric, name):
    z = FACTORS.double() * torch.tensor([1.0, -2.0, 0.5, 3.0, 1.0, 1.0])
    z = torch.cat([z, torch.zeros(len(z), 2).double()], 1) if name != "modularity" else z
    found = measured(metric, z, FACTORS).values[name]
    assert found.value > 0.99
    assert found.n == 4096


@pytest.mark.parametrize(("metric", "name"), CASES[1:])
def test_a_random_code_scores_chance(metric, name):
    found = measured(metric, torch.randn(len(FACTORS), 8), FACTORS).values[name]
    # With the best of 8 codes for each of 6 factors, votes can be a little above one in six.
    assert found.value < 1 / 6 + 5 * math.sqrt(5 / 36 / 500)
    assert found.standard_error == pytest.approx(math.sqrt(found.value * (1 - found.value) / 500))


def test_a_code_that_knows_two_factors_is_less_modular():
    mixed = torch.stack([FACTORS[:, 0] + 4 * FACTORS[:, 1], FACTORS[:, 2]], 1).double()
    found = measured(Modularity(), mixed, FACTORS)
    # The first code knows two of six factors equally: 1 - 1 / 5.
    assert found.details["modularity_per_code"] == pytest.approx([0.8, 1.0], abs=1e-6)
    assert found.values["modularity"].value == pytest.approx(0.9, abs=1e-6)


def test_modularity_by_hand():
    information = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]]).double()
    assert modularities(information).tolist() == [1 - 1 / (4 * 2), 0]


def test_the_beta_vae_score_allows_rotation_and_the_others_do_not():
    torch.manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(6, 6)).Q.double()
    z = (FACTORS.double() - 1.5) @ rotation
    assert measured(FactorVAEScore(500, 500), z, FACTORS).values["factor_vae_score"].value < 0.9
    assert measured(BetaVAEScore(2000, 500), z, FACTORS).values["beta_vae_score"].value > 0.6


def test_partners_share_the_value_and_are_drawn_evenly():
    values = torch.tensor([2, 0, 2, 1, 2, 0])
    examples = torch.tensor([0, 1, 3]).repeat(4000)
    partners = Sharing(values).partners(examples)
    assert torch.equal(values[partners], values[examples])
    of_two = partners[examples == 0]
    for example in (0, 2, 4):
        assert (of_two == example).double().mean().item() == pytest.approx(1 / 3, abs=4 * math.sqrt(2 / 9 / 4000))


def test_what_has_no_meaning_is_said():
    with pytest.raises(NotApplicableError, match="none can vote"):
        measured(FactorVAEScore(10, 10), torch.zeros(64, 2), FACTORS[:64] * 0 + torch.arange(64)[:, None] % 2)
    with pytest.raises(NotApplicableError, match="fewer than two factors"):
        measured(BetaVAEScore(10, 10), torch.randn(64, 2), torch.zeros(64, 2).long())
    with pytest.raises(NotApplicableError, match="single factor"):
        measured(Modularity(), torch.randn(64, 2), FACTORS[:64, :1])
