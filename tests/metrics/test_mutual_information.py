from __future__ import annotations

import math

import pytest
import torch

from tests.metrics import linear_gaussian
from tests.metrics.codes import transparent
from vaebench.data.split import DataSplit
from vaebench.metrics.base import NotApplicableError
from vaebench.metrics.elbo import ELBO
from vaebench.metrics.mutual_information import MutualInformation


def test_the_parts_sum_to_the_rate():
    model, split, _ = linear_gaussian.make(400, mean_shift=0.3)
    found = MutualInformation()(model, split, batch_size=150).values
    rate = ELBO()(model, split).values["rate_nats"]
    total = found["mutual_information_nats"].value + found["marginal_kl_nats"].value
    # One draw for each example: the spread of log q(z|x) - log p(z) is of the order of the latent dimension.
    assert total == pytest.approx(rate.value, abs=4 * 2 * math.sqrt(linear_gaussian.LATENT / 400))


def test_information_of_a_linear_gaussian_channel():
    """z = x + unit noise, x ~ N(0, s^2): I = log(1 + s^2) / 2 nats."""
    scale, n = 3.0, 3000
    torch.manual_seed(0)
    found = MutualInformation()(transparent(1), DataSplit(scale * torch.randn(n, 1)), batch_size=1000).values
    information = found["mutual_information_nats"]
    assert information.value == pytest.approx(0.5 * math.log(1 + scale**2), abs=4 * information.standard_error + 0.02)
    variance = 1 + scale**2  # of q(z), against the prior's 1
    assert found["marginal_kl_nats"].value == pytest.approx(0.5 * (variance - 1 - math.log(variance)), rel=0.1)


def test_codes_that_lie_apart_reach_the_ceiling():
    found = MutualInformation()(transparent(1), DataSplit(100 * torch.arange(50.0)[:, None]))
    assert found.values["mutual_information_nats"].value == pytest.approx(math.log(50), abs=1e-6)
    assert "cannot exceed 3.912" in found.how


def test_a_collapsed_posterior_knows_nothing():
    found = MutualInformation()(transparent(2), DataSplit(torch.zeros(60, 2))).values
    assert found["mutual_information_nats"].value == pytest.approx(0, abs=1e-6)
    assert found["marginal_kl_nats"].value == pytest.approx(0, abs=1e-6)
    with pytest.raises(NotApplicableError, match="at least two"):
        MutualInformation()(transparent(2), DataSplit(torch.zeros(1, 2)))
