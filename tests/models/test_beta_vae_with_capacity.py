"""The capacity by hand: its ramp, the mean before the absolute value, and what is returned."""

import pytest
import torch

from vaebench.core import Batch
from vaebench.models.beta_vae_with_capacity import BetaVAEWithCapacity

SHAPE = (1, 4, 5)


def make(**arguments):
    torch.manual_seed(0)
    return BetaVAEWithCapacity(SHAPE, likelihood="bernoulli", latent_dim=3, **arguments)


@pytest.fixture
def x():
    return torch.rand(6, *SHAPE).round()


def test_the_loss_by_hand_along_the_ramp(x):
    model = make(gamma=10.0, capacity_max=5.0, capacity_num_iter=100)
    for step, capacity in {0: 0.0, 1: 0.05, 50: 2.5, 100: 5.0, 101: 5.0}.items():
        torch.manual_seed(1)
        loss = model.loss(Batch(x), step)
        torch.manual_seed(1)
        distortion, rate = model.distortion_and_rate(x)
        torch.testing.assert_close(loss.terms["current_capacity"], torch.tensor(capacity))
        torch.testing.assert_close(loss.terms["kl_capacity_diff"], rate.mean() - capacity)
        torch.testing.assert_close(loss.terms["penalty"], 10 * (rate.mean() - capacity).abs())
        torch.testing.assert_close(loss.total, distortion.mean() + 10 * (rate.mean() - capacity).abs())


def test_the_mean_is_taken_before_the_absolute_value():
    model = make(gamma=1.0, capacity_max=2.0, capacity_num_iter=0)
    penalty, _ = model.penalty(None, None, torch.tensor([0.0, 4.0]), step=0)
    assert penalty.item() == 0.0  # the mean of the absolute values is 2


def test_above_and_below_the_capacity_the_gradient_points_to_it():
    model = make(gamma=3.0, capacity_max=2.0, capacity_num_iter=0)
    for rates, slope in (([3.0, 5.0], 1.5), ([0.0, 1.0], -1.5)):
        rate = torch.tensor(rates, requires_grad=True)
        (gradient,) = torch.autograd.grad(model.penalty(None, None, rate, step=0)[0], rate)
        torch.testing.assert_close(gradient, torch.full((2,), slope))


def test_training_holds_the_rate_at_the_capacity(x):
    model = make(gamma=100.0, capacity_max=3.0, capacity_num_iter=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(300):
        optimizer.zero_grad()
        loss = model.loss(Batch(x), step)
        loss.total.backward()
        optimizer.step()
    assert abs(loss.terms["rate"] - 3) < 0.2


def test_loss_fn_returns_the_numbers_of_the_capacity(x):
    model = make()
    losses = model.loss_fn(x, step=50_000)
    assert losses["current_capacity"] == 12.5
    torch.testing.assert_close(losses["kl_capacity_diff"], losses["kl_loss"] - 12.5)
    torch.testing.assert_close(losses["capacity_loss"], 1000 * losses["kl_capacity_diff"].abs())
    torch.testing.assert_close(losses["loss"], losses["recon_loss"] + losses["capacity_loss"])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda m, x: m.loss_fn(x, beta=4.0, step=1), "beta has no place beside a capacity, whose weight is gamma"),
        (lambda m, x: m.loss_fn(x), "the capacity changes with the step: give step="),
        (lambda m, x: make(capacity_max=-1.0), "capacity_max must be at least 0 and finite; got -1"),
        (lambda m, x: make(gamma=-1.0), "gamma must be at least 0 and finite; got -1"),
        (lambda m, x: make(capacity_num_iter=-1), "capacity_num_iter must be a whole number of at least 0; got -1"),
    ],
)
def test_refusals(x, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(make(), x)
