"""-log p(x) of an energy against a Gaussian whose normaliser is known."""

from __future__ import annotations

import pytest
import torch

from tests.metrics.linear_gaussian import make
from tests.models.test_energy_based import gaussian_model
from vaebench.data.split import DataSplit
from vaebench.metrics.base import NotApplicableError
from vaebench.metrics.energy_nll import EnergyNLL
from vaebench.models.ebm import EBM


@pytest.mark.parametrize("a", [0.3, 4.0])
def test_it_is_that_of_the_gaussian(a):
    """U(u) = a |u|^2 / 2 with u = (x - m) / c is N(m, c^2 / a)."""
    model, x = gaussian_model(EBM, n=400)
    with torch.no_grad():
        model.energy_function.trunk.a.fill_(a)
    result = EnergyNLL(num_temperatures=100, num_chains=200, num_leapfrog=3)(model, DataSplit(x))
    p = torch.distributions.Normal(model.location, model.scale / a**0.5)
    found, log_z = result.values["energy_nll_nats"], result.values["log_normalizer_nats"]
    assert abs(found.value + float(p.log_prob(x).sum(-1).mean())) <= 4.5 * log_z.standard_error + 1e-3
    assert found.n == 400
    assert log_z.standard_error < 0.1


def test_models_without_an_energy_are_left_out():
    model, split, _ = make(3)
    with pytest.raises(NotApplicableError, match="VAE has no energy: it defines no energy of x"):
        EnergyNLL()(model, split)
