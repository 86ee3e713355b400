from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from tests.metrics import linear_gaussian
from vaebench.data.split import DataSplit
from vaebench.metrics.base import Estimate, Metric, NotApplicableError, Result
from vaebench.metrics.elbo import ELBO


def test_standard_error_is_that_of_the_mean():
    values = torch.tensor([1.0, 2.0, 4.0, 9.0])
    found = Estimate.mean(values, "nats")
    # mean 4, squared deviations 9 + 4 + 0 + 25 = 38, s^2 = 38 / 3, s.e. = sqrt(38 / 12)
    assert found.value == 4
    assert found.standard_error == pytest.approx(math.sqrt(38 / 12))
    assert found.n == 4


def test_standard_error_covers_the_truth():
    draws = torch.randn(2000, 50, dtype=torch.float64)
    misses = sum(abs(e.value) > 1.96 * e.standard_error for e in (Estimate.mean(row, "") for row in draws))
    assert misses / 2000 == pytest.approx(0.056, abs=4 * math.sqrt(0.056 * 0.944 / 2000))  # t with 49 degrees


def test_float32_values_are_summed_in_float64():
    values = torch.full((1000,), 16_777_217.0 / 3, dtype=torch.float32)
    assert Estimate.mean(values, "").value == pytest.approx(values[0].item(), rel=1e-13)


def test_one_example_has_no_standard_error():
    assert Estimate.mean(torch.ones(1), "nats").standard_error is None


def test_values_that_are_not_finite_are_an_error():
    with pytest.raises(FloatingPointError, match="2 of 3 examples"):
        Estimate.mean(torch.tensor([math.nan, 1.0, math.inf]), "nats")


class Spy(Metric):
    needs = frozenset({"posterior"})

    def measure(self, subject):
        noise = [torch.randn(len(batch)) for batch in subject.batches()]
        assert not torch.is_grad_enabled()
        assert not any(module.training for module in subject.model.modules())
        return Result({"noise": Estimate.mean(torch.cat(noise), "")}, "spied")


def test_evaluation_leaves_no_trace():
    model, split, _ = linear_gaussian.make(5)
    model.train()
    model.decoder.eval()
    dropout = nn.Dropout().train()
    model.extra = dropout
    before = torch.get_rng_state()
    done: list[int] = []
    first = Spy()(model, split, batch_size=2, seed=3, advance=done.append)
    assert done == [2, 2, 1]
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert dropout.training
    assert not model.decoder.training
    torch.randn(17)
    assert Spy()(model, split, batch_size=2, seed=3).values == first.values
    assert Spy()(model, split, batch_size=2, seed=4).values != first.values


def test_a_missing_capability_is_said_with_its_reason():
    model, split, _ = linear_gaussian.make(2)
    model.capabilities = frozenset({"likelihood"})
    model.why_not = {"rate": "its encoder is deterministic"}
    with pytest.raises(NotApplicableError, match="VAE has no rate: its encoder is deterministic"):
        ELBO()(model, split)


def test_nothing_to_evaluate_is_refused():
    model, split, _ = linear_gaussian.make(2)
    with pytest.raises(ValueError, match="empty split"):
        ELBO()(model, DataSplit(torch.zeros(0, 5)))
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1"):
        ELBO()(model, split, batch_size=0)


def test_results_are_plain_values():
    model, split, _ = linear_gaussian.make(3)
    text = json.dumps(ELBO()(model, split).as_json(), allow_nan=False)
    assert json.loads(text)["values"]["elbo_nats"]["unit"] == "nats"
