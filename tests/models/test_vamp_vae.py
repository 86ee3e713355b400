"""VampPrior: the prior written out, the rate from one draw, and how the pseudo-inputs start."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Normal

from vaebench.core import Batch
from vaebench.models.vamp_vae import VampVAE
from vaebench.networks import MLP

SHAPE = (1, 4, 5)


def make(**arguments):
    torch.manual_seed(0)
    arguments = {"num_pseudo_inputs": 7, "network": MLP(hidden_dims=(8,)), **arguments}
    return VampVAE(SHAPE, likelihood="bernoulli", latent_dim=3, **arguments)


@pytest.fixture
def x():
    return torch.rand(6, *SHAPE).round()


def log_prior(model, z):
    q = model.posterior(model.pseudo_inputs.clamp(0, 1))
    each = Normal(q.mean, q.stddev).log_prob(z[:, None]).sum(-1)
    return each.logsumexp(1) - math.log(7)


def test_the_prior_is_the_mean_of_the_pseudo_inputs_posteriors():
    model, z = make(), torch.randn(5, 3)
    with torch.no_grad():
        model.pseudo_inputs.normal_()  # also outside [0, 1]
    torch.testing.assert_close(model.prior().log_prob(z), log_prior(model, z))


def test_the_rate_is_that_of_the_draw_and_is_named_so(x):
    model = make()
    torch.manual_seed(1)
    q, _, z, _, rate = model.elbo_terms(x)
    torch.testing.assert_close(rate, Normal(q.mean, q.stddev).log_prob(z).sum(-1) - log_prior(model, z))
    assert model.rate_estimator == "one sample"


def test_the_loss_is_distortion_plus_rate(x):
    model = make()
    torch.manual_seed(1)
    loss = model.loss(Batch(x), 0)
    torch.manual_seed(1)
    _, _, z, _, rate = model.elbo_terms(x)
    torch.testing.assert_close(loss.total, (rate - model.likelihood(z).log_prob(x)).mean())
    assert torch.autograd.grad(loss.total, model.pseudo_inputs)[0].abs().sum() > 0


def test_pseudo_inputs_that_are_the_data_give_the_aggregate_posterior(x):
    model = make(num_pseudo_inputs=6)
    with torch.no_grad():
        model.pseudo_inputs.copy_(x)
    z, q = torch.randn(5, 3), model.posterior(x)
    aggregate = Normal(q.mean, q.stddev).log_prob(z[:, None]).sum(-1).logsumexp(1) - math.log(6)
    torch.testing.assert_close(model.prior().log_prob(z), aggregate)


def test_they_start_as_published():
    u = make(num_pseudo_inputs=500).pseudo_inputs.detach()
    n = u.numel()
    assert u.shape == (500, *SHAPE)
    assert abs(u.mean() - 0.05) < 4 * 0.01 / n**0.5
    assert abs(u.std() - 0.01) < 4 * 0.01 / (2 * n) ** 0.5
    assert VampVAE(SHAPE, likelihood="bernoulli").pseudo_inputs.shape == (500, *SHAPE)


def test_they_start_from_different_examples_where_asked(x):
    data = torch.arange(20.0)[:, None, None, None].expand(20, *SHAPE)
    train = type("Train", (), {"__len__": lambda self: 20, "batch": lambda self, rows: SimpleNamespace(x=data[rows])})()
    model = make(pseudo_input_init="data")
    model.before_training(train)
    rows = model.pseudo_inputs.detach().mean((1, 2, 3)).round()
    assert len(rows.unique()) == 7
    residual = model.pseudo_inputs.detach() - rows[:, None, None, None]
    assert 0.007 < residual.std() < 0.013
    random = make()
    before = random.pseudo_inputs.clone()
    random.before_training(train)
    assert torch.equal(random.pseudo_inputs, before)
    with pytest.raises(ValueError, match="num_pseudo_inputs must be at most the number of examples, 20; got 21"):
        make(pseudo_input_init="data", num_pseudo_inputs=21).before_training(train)


def test_samples_come_from_the_mixture():
    model = make()
    with torch.no_grad():
        model.pseudo_inputs.copy_(torch.rand(7, *SHAPE))
        q = model.posterior(model.pseudo_inputs)
        z = model.draw_from_prior(20_000)
    assert ((z.mean(0) - q.mean.mean(0)).abs() < 4 * z.std(0) / 20_000**0.5).all()
    assert model.sample(3, temperature=0.5).shape == (3, *SHAPE)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_pseudo_inputs": 0}, "num_pseudo_inputs must be a whole number of at least 1; got 0"),
        ({"pseudo_input_std": -1.0}, "pseudo_input_std must be at least 0 and finite; got -1"),
        ({"pseudo_input_init": "dat"}, "pseudo_input_init must be random or data; got 'dat'"),
    ],
)
def test_refusals(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(**arguments)
