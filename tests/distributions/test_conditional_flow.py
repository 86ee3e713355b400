"""The flow likelihood: a density that integrates to 1, and a bound whose exponential has the mass as its mean."""

import itertools
import math

import pytest
import torch
from torch.distributions import Normal

from vaebench.distributions.conditional_flow import ALPHA, ConditionalFlow
from vaebench.models import VAE


def head(shape, num_levels, dequantization="uniform", spread=0.2):
    torch.manual_seed(0)
    likelihood = ConditionalFlow(num_levels, dequantization, context_dim=2, num_transforms=2, hidden_features=(8,))
    likelihood.setup(shape)
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter += spread * torch.randn_like(parameter)
    return likelihood.double()


def context(likelihood, shape):
    return torch.randn(1, *likelihood.params_shape(shape), dtype=torch.float64)


@torch.no_grad()
def test_the_density_of_real_data_integrates_to_1():
    likelihood = head((2,), None)
    axis = torch.linspace(-8, 8, 301, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    density = likelihood(context(likelihood, (2,)), 1).log_prob(points[:, None]).exp()
    assert float(density.sum()) * float(axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("dequantization", ["uniform", "variational"])
@pytest.mark.parametrize("shape", [(2,), (1, 1, 2)])
@torch.no_grad()
def test_the_masses_of_all_values_sum_to_what_the_flow_keeps_in_the_box(shape, dequantization):
    """E exp(log_prob) is the mass of the bin, exactly; those outside of [0, 1]^D are the flow's own loss."""
    likelihood = head(shape, 3, dequantization)
    c, num_draws = context(likelihood, shape), 2_000
    values = torch.tensor(list(itertools.product([0, 0.5, 1], repeat=2)), dtype=torch.float64).view(9, *shape)
    p = likelihood(c.expand(num_draws, 1, *c.shape[1:]), len(shape))
    weights = torch.stack([p.log_prob(value[None]).exp()[:, 0] for value in values])  # (9, draws)
    error = float((weights.var(1) / num_draws).sum().sqrt())
    # the same total from draws: the share that falls into the box
    v = likelihood.flow.inverse(torch.randn(20_000, *shape).double(), c.expand(20_000, *c.shape[1:]))
    y = likelihood.from_real(v).flatten(1)
    kept = float(((y >= 0) & (y <= 1)).all(1).double().mean())
    assert float(weights.mean(1).sum()) == pytest.approx(kept, abs=4.5 * math.hypot(error, 0.5 / math.sqrt(20_000)))


@torch.no_grad()
def test_before_training_the_mass_of_a_bin_is_the_normals():
    """An oracle: couplings begin as the identity, so that logit(alpha + (1 - 2 alpha) y) is standard normal."""
    likelihood = head((1, 1, 1), 4, spread=0.0)
    c = context(likelihood, (1, 1, 1))
    edges = torch.logit(ALPHA + (1 - 2 * ALPHA) * torch.linspace(0, 1, 5, dtype=torch.float64))
    exact = Normal(0.0, 1.0).cdf(edges).diff()
    p = likelihood(c.expand(4_000, 1, *c.shape[1:]), 3)
    for k in range(4):
        weights = p.log_prob(torch.full((1, 1, 1, 1), k / 3, dtype=torch.float64)).exp()
        error = float(weights.std()) / math.sqrt(4_000)
        assert float(weights.mean()) == pytest.approx(float(exact[k]), abs=4.5 * error)


@torch.no_grad()
def test_draws_lie_on_the_levels_as_often_as_the_masses_say():
    likelihood = head((1, 1, 1), 4, spread=0.0)
    c = context(likelihood, (1, 1, 1))
    x = likelihood(c, 3).sample((10_000,)).flatten()
    counts = torch.bincount((x * 3).round().long(), minlength=4) / len(x)
    assert torch.equal((x * 3).round() / 3, x)
    edges = torch.logit(ALPHA + (1 - 2 * ALPHA) * torch.linspace(0, 1, 5, dtype=torch.float64))
    edges[0], edges[-1] = -math.inf, math.inf  # what leaves the box is drawn onto its ends
    exact = Normal(0.0, 1.0).cdf(edges).diff()
    assert ((counts - exact).abs() < 4.5 * (exact * (1 - exact) / len(x)).sqrt()).all()


def test_a_variational_dequantiser_tightens_the_bound():
    """One pixel of two levels: the couplings make a Gaussian of it, which uniform u does not suit."""
    bounds = {}
    for dequantization in ("uniform", "variational"):
        torch.manual_seed(1)
        likelihood = ConditionalFlow(2, dequantization, context_dim=1, num_transforms=2, hidden_features=(8,))
        likelihood.setup((1, 1, 1))
        optimizer = torch.optim.Adam(likelihood.parameters(), 0.02)
        x, c = torch.randint(0, 2, (64, 1, 1, 1)).float(), torch.zeros(64, 1, 1, 1)
        for _ in range(120):
            loss = -likelihood(c, 3).log_prob(x).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            bounds[dequantization] = float(torch.stack([likelihood(c, 3).log_prob(x) for _ in range(100)]).mean())
    share = float(x.mean())
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert bounds["uniform"] + 0.01 < bounds["variational"] < -entropy + 0.01


def test_the_variational_dequantiser_begins_as_the_uniform_one():
    shape, bounds = (1, 2, 2), []
    for dequantization in ("uniform", "variational"):
        likelihood = head(shape, 4, dequantization, spread=0.0)
        x, c = torch.full((50, *shape), 1 / 3).double(), torch.zeros(50, *likelihood.params_shape(shape)).double()
        torch.manual_seed(2)
        bounds.append(likelihood(c, 3).log_prob(x))
    torch.testing.assert_close(*bounds, rtol=0, atol=1e-9)


def test_a_vae_with_it_trains_every_parameter_and_says_that_its_number_is_a_bound():
    model = VAE((1, 4, 3), likelihood=ConditionalFlow(8, "variational", 4, 2, (8,)), latent_dim=2)
    x = torch.randint(0, 8, (5, 1, 4, 3)) / 7
    distortion, rate = model.distortion_and_rate(x)
    (distortion + rate).mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.likelihood(torch.randn(3, 5, 2)).log_prob(x).shape == (3, 5)
    assert model.likelihood_head.is_discrete
    assert "variational dequantisation" in model.likelihood_head.caution(x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "num_levels must be the number of levels of the data, or null for real data; got auto"),
        ({"num_levels": 1}, "num_levels must be a whole number of at least 2, or null; got 1"),
        ({"num_levels": 2, "dequantization": "unifrom"}, "did you mean 'uniform'"),
        ({"num_levels": 2, "hidden_features": []}, "at least one layer"),
        ({"num_levels": 2, "context_dim": 0}, "context_dim must be a whole number of at least 1; got 0"),
    ],
)
def test_mistakes_are_told(settings, message):
    with pytest.raises(ValueError, match=message):
        ConditionalFlow(**settings)
