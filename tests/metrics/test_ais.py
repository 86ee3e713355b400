"""Annealed importance sampling against the exact evidence of a linear-Gaussian decoder."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from tests.metrics.linear_gaussian import make
from vaebench.core import Batch
from vaebench.mcmc.annealing import AnnealedEnergy, StepSizes, anneal, inverse_temperatures, tune
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.metrics.ais import AIS
from vaebench.metrics.base import NotApplicableError
from vaebench.models.conditional_vae import ConditionalVAE
from vaebench.models.rae_l2 import RAEL2
from vaebench.networks import MLP


@functools.cache
def thousand():
    """At 1,000 temperatures: the result, and the exact log p(x)."""
    model, split, exact = make(30)
    return AIS(num_temperatures=1000, num_leapfrog=2, num_simulated=30)(model, split, seed=1), exact


def test_within_a_tenth_of_a_nat_of_the_exact_evidence():
    result, exact = thousand()
    found = result.values["ais_log_likelihood_nats"]
    assert found.n == 30
    assert abs(found.value - float(exact.mean())) <= 0.1
    assert (found.per_example - exact).abs().max() <= 0.5
    assert result.values["ais_ess"].value > 10


def test_the_forward_bound_lies_below_the_reverse_one():
    values = thousand()[0].values
    gap = values["ais_gap_nats"]
    assert gap.value >= -3 * gap.standard_error
    assert gap.value <= 0.25
    assert gap.value == pytest.approx(values["ais_upper_nats"].value - values["ais_lower_nats"].value)


def test_few_temperatures_leave_a_gap_about_the_truth():
    """Forward below the exact evidence, reverse above it, both by far more than the noise."""
    model, _, _ = make(1)
    metric = AIS(num_temperatures=5, num_leapfrog=2, num_chains=4)
    torch.manual_seed(0)
    z = model.draw_from_prior(200)
    x = model.likelihood(z).sample()
    W, b = model.decoder[0].weight.detach(), model.decoder[0].bias.detach()
    covariance = W @ W.T + float(model.likelihood_head.log_scale.exp()) ** 2 * torch.eye(len(b))
    exact = torch.distributions.MultivariateNormal(b, covariance).log_prob(x)
    bounds = metric.bounds(model.eval(), Batch(x), z)
    for error in (exact - bounds.lower, bounds.upper - exact):
        assert float(error.mean()) > 3 * float(error.std()) / math.sqrt(200)


def test_more_chains_tighten_the_bound():
    """The mean over chains is taken inside the logarithm: outside, their number would change nothing."""
    model, split, _ = make(300)
    batch, found = split.batch(torch.arange(300)), []
    for num_chains in (1, 64):
        torch.manual_seed(0)
        bounds = AIS(num_temperatures=2, num_leapfrog=1, num_chains=num_chains).bounds(model.eval(), batch)
        found.append(bounds.lower)
    gain = found[1] - found[0]
    assert float(gain.mean()) > 4.5 * float(gain.std()) / math.sqrt(300)


def test_weights_are_unbiased():
    """E[w] = Z for a Gaussian factor, whatever the number of temperatures; the reverse gives 1 / Z."""
    torch.manual_seed(0)
    n, k = 200_000, 3.0

    def log_base(z):
        return -z.square().sum(-1) / 2 - math.log(2 * math.pi) / 2

    energy = AnnealedEnergy(log_base, lambda z: -k * z.square().sum(-1) / 2)
    steps = StepSizes(torch.zeros(1, 1, dtype=torch.float64) - 0.5, torch.zeros(1, 1))
    betas = inverse_temperatures(4)
    start = torch.randn(n, 1, dtype=torch.float64)
    z = (1 + k) ** -0.5
    weights, _ = anneal(HMCKernel(2), energy, start, steps, betas)
    back, _ = anneal(HMCKernel(2), energy, start * z, steps, betas[::-1])
    for log_w, expected in ((weights, z), (back, 1 / z)):
        w = log_w.exp()
        assert abs(float(w.mean()) - expected) <= 4.5 * float(w.std()) / math.sqrt(n)


def test_each_example_has_a_step_size_of_its_own():
    """The pilot finds a small one where the posterior is narrow."""
    torch.manual_seed(0)
    width = torch.tensor([1.0, 0.05], dtype=torch.float64).repeat(32)

    def log_factor(z):
        return -z.square().sum(-1) / (2 * width**2)

    energy = AnnealedEnergy(lambda z: -z.square().sum(-1) / 2, log_factor)
    steps = tune(HMCKernel(4), energy, torch.randn(64, 3, dtype=torch.float64), 2)
    assert steps.log_steps.shape == steps.acceptance.shape == (50, 2)
    assert (steps.acceptance[-1] - 0.65).abs().max() < 0.2
    wide, narrow = steps.at(1.0).tolist()
    assert 5 < wide / narrow < 60
    assert steps.at(0.0)[1] > 3 * narrow  # at the prior's end it may be large


@pytest.mark.parametrize("schedule", ["sigmoid", "linear"])
def test_schedules_go_from_0_to_1(schedule):
    betas = inverse_temperatures(7, schedule)
    assert betas[0] == 0
    assert betas[-1] == 1
    assert betas == sorted(betas)
    assert betas[3] + betas[4] == pytest.approx(1)


def test_labels_reach_the_decoder():
    """With a decoder that the label shifts, the evidence follows the label."""
    torch.manual_seed(0)
    model = ConditionalVAE((3,), likelihood="gaussian", latent_dim=2, num_classes=2, network=MLP(hidden_dims=()))
    metric, x = AIS(num_temperatures=20, num_chains=8, num_leapfrog=2), torch.zeros(40, 3)
    found = []
    for label in (0, 1):
        torch.manual_seed(1)
        found.append(metric.bounds(model.eval(), Batch(x, torch.full((40,), label))).lower)
        offset = model.likelihood(torch.zeros(1, 2), torch.tensor([label])).mean
        W = torch.stack([model.likelihood(e[None], torch.tensor([label])).mean[0] - offset[0] for e in torch.eye(2)], 1)
        scale = model.likelihood(torch.zeros(1, 2), torch.tensor([label])).variance.sqrt().flatten()[0]
        covariance = (W @ W.T + scale**2 * torch.eye(3)).detach()
        exact = torch.distributions.MultivariateNormal(offset[0].detach(), covariance).log_prob(torch.zeros(3))
        assert float(found[-1].mean()) == pytest.approx(float(exact), abs=0.1)
    assert abs(float(found[0].mean() - found[1].mean())) > 1e-3


def test_what_has_no_evidence_says_so():
    model, split, _ = make(5)
    rae = RAEL2((5,), likelihood="gaussian", latent_dim=2, network=MLP(hidden_dims=(8,))).double()
    with pytest.raises(NotApplicableError, match="RAEL2 has no prior"):
        AIS()(rae, split)
    for arguments, sentence in (
        ({"num_temperatures": 1}, "num_temperatures must be a whole number of at least 2; got 1"),
        ({"num_chains": 0}, "num_chains must be"),
        ({"schedule": "cubic"}, "schedule must be sigmoid or linear; got 'cubic'"),
        ({"num_simulated": -1}, "num_simulated must be"),
    ):
        with pytest.raises(ValueError, match=sentence):
            AIS(**arguments)
    assert set(AIS(num_temperatures=2, num_simulated=0, num_leapfrog=1)(model, split).values) == {
        "ais_log_likelihood_nats",
        "ais_ess",
    }


def test_a_temperature_has_one_step_size_on_the_way_up_and_down():
    class Recorder(HMCKernel):
        def step(self, state, energy, parameters, draw):
            steps.append((energy.beta, parameters.step_size[:, 0].tolist()))
            return super().step(state, energy, parameters, draw)

    energy = AnnealedEnergy(lambda z: -z.square().sum(-1) / 2, lambda z: -4 * z.square().sum(-1))
    sizes = StepSizes(torch.tensor([[0.0], [-1.0], [-2.0], [-3.0]]), torch.ones(4, 1))
    betas, found = [0.0, 0.25, 0.5, 0.75, 1.0], []
    for order in (betas, betas[::-1]):
        steps = []
        anneal(Recorder(1), energy, torch.randn(3, 2), sizes, order)
        found.append(dict(steps))
    assert found[0] == found[1]
    assert len(found[0]) == 3
    assert found[0][0.25][0] > found[0][0.5][0] > found[0][0.75][0]


def test_large_pictures_are_annealed_in_parts(monkeypatch):
    model, split, _ = make(7)
    ais, sizes = AIS(num_temperatures=2, num_chains=4, num_leapfrog=1, num_simulated=5), []
    bounds = ais.bounds
    monkeypatch.setattr(ais, "bounds", lambda model, batch, *z: (sizes.append(len(batch)), bounds(model, batch, *z))[1])
    monkeypatch.setattr("vaebench.metrics.bounds.MOST_NUMBERS", 3 * 4 * 3 * math.prod(model.shape))
    result = ais(model, split, seed=1)
    assert sizes == [3, 3, 1, 3, 2]
    assert result.values["ais_log_likelihood_nats"].n == 7
