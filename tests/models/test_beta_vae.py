"""beta-VAE: the VAE at beta 1 to the bit, schedules by the step, and both forms of free bits."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from vaebench.core import Batch
from vaebench.models.beta_vae import BetaVAE
from vaebench.models.vae import VAE
from vaebench.objectives.divergences import free_bits_rate
from vaebench.schedules import CyclicalScheduler, LinearScheduler

SHAPE = (1, 4, 5)


def make(**arguments):
    torch.manual_seed(0)
    return BetaVAE(SHAPE, likelihood="bernoulli", latent_dim=3, **arguments)


def loss_of(model, x, step=0):
    torch.manual_seed(1)
    return model.loss(Batch(x), step)


@pytest.fixture
def x():
    return torch.rand(6, *SHAPE).round()


def test_at_beta_one_it_is_the_vae_to_the_bit(x):
    torch.manual_seed(0)
    vae = VAE(SHAPE, likelihood="bernoulli", latent_dim=3)
    model = make(beta=1.0)
    expected, found = loss_of(vae, x).total, loss_of(model, x).total
    assert torch.equal(found, expected)
    gradients = [torch.autograd.grad(total, m.parameters()) for total, m in ((found, model), (expected, vae))]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_beta_weighs_the_rate_alone(x):
    loss = loss_of(make(), x)
    torch.testing.assert_close(loss.total, loss.terms["distortion"] + 4 * loss.terms["rate"])
    assert loss.terms["beta"] == 4


def test_warm_up_follows_the_optimisers_step(x):
    model = make(beta=LinearScheduler(0.0, 2.0, 10))
    for step, beta in {0: 0.0, 1: 0.2, 10: 2.0, 11: 2.0}.items():
        loss = loss_of(model, x, step)
        torch.testing.assert_close(loss.terms["beta"], torch.tensor(beta))
        torch.testing.assert_close(loss.total, loss.terms["distortion"] + beta * loss.terms["rate"])


def test_validation_is_the_elbo_at_every_step(x):
    model = make(beta=LinearScheduler(0.0, 2.0, 10))
    totals = []
    for step in (0, 10):
        torch.manual_seed(1)
        totals.append(model.validation_loss(Batch(x), step).total)
    assert torch.equal(*totals)
    torch.manual_seed(1)
    distortion, rate = model.distortion_and_rate(x)
    assert torch.equal(totals[0], (distortion + rate).mean())


def test_loss_fn_takes_the_step_or_a_beta(x):
    model = make(beta=LinearScheduler(0.0, 2.0, 10))
    outputs = model(x)
    half = model.loss_fn(x, outputs, step=5)
    torch.testing.assert_close(half["beta"], torch.tensor(1.0))
    torch.testing.assert_close(half["loss"], half["recon_loss"] + half["kl_loss"])
    other = model.loss_fn(x, outputs, beta=3.0)
    torch.testing.assert_close(other["loss"], other["recon_loss"] + 3 * other["kl_loss"])
    with pytest.raises(ValueError, match="beta changes with the step: give step="):
        model.loss_fn(x, outputs)
    assert make(beta=2.0).loss_fn(x)["beta"] == 2


def test_free_bits_by_hand():
    rate = torch.tensor([[0.0, 1.0], [0.4, 3.0]])
    assert free_bits_rate(rate, 0.5, over="batch").item() == pytest.approx(0.5 + 2.0)  # means 0.2 and 2
    torch.testing.assert_close(free_bits_rate(rate, 0.5, over="example"), torch.tensor([1.5, 3.5]))
    assert free_bits_rate(rate, 0.1, over="batch").item() == pytest.approx(0.2 + 2.0)


@pytest.mark.parametrize("of", ["batch", "example"])
def test_free_bits_enter_the_loss(x, of):
    model = make(beta=2.0, free_bits=0.02, free_bits_of=of)
    torch.manual_seed(1)
    q, _, _, distortion, rate = model.elbo_terms(x)
    each = kl_divergence(Normal(q.mean, q.stddev), Normal(0.0, 1.0))
    bounded = each.mean(0).clamp_min(0.02).sum() if of == "batch" else each.clamp_min(0.02).sum(1).mean()
    assert bounded > rate.mean()
    torch.testing.assert_close(loss_of(model, x).total, distortion.mean() + 2 * bounded)
    torch.testing.assert_close(loss_of(model, x).terms["rate"], rate.mean())
    assert model.couples_batch is (of == "batch")


def test_below_the_free_bits_a_dimension_has_no_gradient(x):
    model = make(beta=1.0, free_bits=100.0)
    q, p, _, _, rate = model.elbo_terms(x)
    penalty, _ = model.penalty(q, p, rate, 0)
    assert penalty.item() == 300.0
    assert all(g is None or not g.any() for g in torch.autograd.grad(penalty, model.parameters(), allow_unused=True))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"beta": -1.0}, "beta must be at least 0 and finite; got -1"),
        ({"beta": LinearScheduler(1.0, -1.0, 10)}, "beta must be at least 0 and finite; got -1"),
        ({"beta": float("nan")}, "beta must be at least 0"),
        ({"free_bits": -0.1}, "free_bits must be at least 0 and finite; got -0.1"),
        ({"free_bits_of": "sample"}, "free_bits_of must be batch or example; got 'sample'"),
    ],
)
def test_refusals(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(**arguments)


def test_a_schedule_is_part_of_the_description():
    assert make(beta=CyclicalScheduler(period=10)).beta(5) == 1.0
