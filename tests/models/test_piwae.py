"""PIWAE: each part has its own importance-weighted bound of the same draws."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import MultivariateNormal

from vaebench.core import Batch
from vaebench.data.split import DataSplit
from vaebench.distributions.likelihoods import Gaussian
from vaebench.models.piwae import PIWAE
from vaebench.networks import MLP, Conv
from vaebench.trainers.coupled import CoupledOptimizerTrainer

SIGMA = 0.7
BOUND = 10.0  # of the log-variance


def linear_gaussian(**arguments):
    """x = W z + sigma eps with orthogonal columns of W, and q(z|x) its exact posterior; returns also log p(x)."""
    W = torch.linalg.qr(torch.randn(6, 2, dtype=torch.float64)).Q * torch.tensor([2.0, 0.5])
    variance = 1 / (1 + (W**2).sum(0) / SIGMA**2)
    model = PIWAE((6,), likelihood=Gaussian(SIGMA), latent_dim=2, network=MLP(hidden_dims=()), **arguments).double()
    slope = variance[:, None] * W.T / SIGMA**2
    with torch.no_grad():
        model.decoder[0].weight.copy_(W)
        model.decoder[0].bias.zero_()
        model.posterior_head.linear.weight.copy_(torch.cat([slope, torch.zeros_like(slope)]))
        raw = BOUND * torch.atanh(variance.log() / BOUND)
        model.posterior_head.linear.bias.copy_(torch.cat([torch.zeros_like(raw), raw]))
    evidence = MultivariateNormal(torch.zeros(6).double(), W @ W.T + SIGMA**2 * torch.eye(6, dtype=torch.float64))
    return model, evidence.log_prob


def model(**arguments):
    return PIWAE((6,), likelihood=Gaussian(SIGMA), latent_dim=2, network=MLP(hidden_dims=(8,)), **arguments).double()


def log_weights(model, x, seed):
    torch.manual_seed(seed)
    return model.log_weights(x, model.num_estimates * model.num_samples)


def totals(model, x, seed):
    torch.manual_seed(seed)
    return {name: loss.total for name, loss in model.losses(Batch(x), step=0).items()}


@pytest.fixture
def x():
    return torch.randn(5, 6, dtype=torch.float64)


def test_at_the_exact_posterior_both_bounds_are_the_log_evidence(x):
    model, log_evidence = linear_gaussian(num_estimates=3, num_samples=4)
    for loss in totals(model, x, seed=1).values():
        torch.testing.assert_close(-loss, log_evidence(x).mean(), rtol=1e-6, atol=0)


def test_one_draw_is_the_elbo(x):
    ours = model(num_estimates=1, num_samples=1)
    elbo = log_weights(ours, x, seed=1).mean()
    for loss in totals(ours, x, seed=1).values():
        torch.testing.assert_close(-loss, elbo)


@pytest.mark.parametrize(("M", "K"), [(5, 1), (1, 5), (2, 3)])
def test_bounds_by_hand(x, M, K):
    ours = model(num_estimates=M, num_samples=K)
    weights = log_weights(ours, x, seed=2).exp()  # (M K, B)
    miwae = sum(weights[m * K : (m + 1) * K].mean(0).log() for m in range(M)) / M
    iwae = weights.mean(0).log()
    losses = totals(ours, x, seed=2)
    torch.testing.assert_close(losses["encoder"], -miwae.mean())
    torch.testing.assert_close(losses["decoder"], -iwae.mean())


def test_one_bound_of_all_draws_is_above_the_mean_of_several(x):
    losses = totals(model(num_estimates=4, num_samples=4), x, seed=3)
    assert -losses["decoder"] > -losses["encoder"] + 1e-3
    # K = 1 leaves the encoder the ELBO, M = 1 gives it all of the decoder's bound.
    elbo = totals(model(num_estimates=16, num_samples=1), x, seed=3)
    whole = totals(model(num_estimates=1, num_samples=16), x, seed=3)
    assert -elbo["decoder"] > -elbo["encoder"]
    torch.testing.assert_close(whole["decoder"], whole["encoder"])


def test_the_two_bounds_have_different_gradients(x):
    ours = model(num_estimates=4, num_samples=2)
    losses = totals(ours, x, seed=4)
    for module in ours.encoder, ours.decoder:
        own, other = (
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)])
            for loss in losses.values()
        )
        assert (own - other).norm() > 1e-3 * own.norm()


def test_the_trainer_gives_each_part_its_own_bound(x):
    ours, x = model(num_estimates=4, num_samples=2).float(), x.float()
    losses = totals(ours, x, seed=5)
    expected = {}
    for name, modules in ours.parts().items():
        parameters = [p for module in modules for p in module.parameters()]
        expected[name] = [
            p.detach() - 0.1 * g
            for p, g in zip(parameters, torch.autograd.grad(losses[name], parameters, retain_graph=True), strict=True)
        ]
    trainer = CoupledOptimizerTrainer(batch_size=5, num_epochs=1, learning_rate=0.1, optimizer="SGD")
    training = trainer.start(ours, SimpleNamespace(train=DataSplit(x), validation=DataSplit(x)))
    torch.manual_seed(5)
    training.train_step(Batch(x))
    for name, modules in ours.parts().items():
        parameters = [p for module in modules for p in module.parameters()]
        for parameter, value in zip(parameters, expected[name], strict=True):
            torch.testing.assert_close(parameter.detach(), value)


def test_validation_is_the_elbo_and_its_terms(x):
    loss = model().validation_loss(Batch(x), 0)
    torch.testing.assert_close(loss.total, loss.terms["distortion"] + loss.terms["rate"])


@pytest.mark.parametrize(
    ("shape", "network"), [((1, 8, 8), MLP()), ((3, 13, 22), Conv(channels=(4, 8), hidden_dim=16)), ((5,), MLP())]
)
def test_any_shape(shape, network):
    model = PIWAE(shape, likelihood=Gaussian(), network=network, num_estimates=2, num_samples=3)
    losses = model.losses(Batch(torch.rand(4, *shape)), 0)
    assert all(math.isfinite(loss.total.item()) for loss in losses.values())
    assert list(losses) == list(model.parts())
    assert list(model.losses(Batch(torch.rand(4, *shape)), 0, "decoder")) == ["decoder"]


@pytest.mark.parametrize("argument", ["num_estimates", "num_samples"])
def test_refuses_no_draws(argument):
    with pytest.raises(ValueError, match=f"{argument} must be a whole number of at least 1; got 0"):
        model(**{argument: 0})


def test_validation_reports_the_elbo_and_the_bound_by_which_weights_are_compared(x):
    piwae = model(num_estimates=2, num_samples=3)
    torch.manual_seed(1)
    loss = piwae.validation_loss(Batch(x), 0)
    torch.manual_seed(1)
    distortion, rate = piwae.distortion_and_rate(x)
    bound = piwae.log_weights(x, 6).logsumexp(0) - math.log(6)
    torch.testing.assert_close(loss.total, (distortion + rate).mean())
    torch.testing.assert_close(loss.terms["iwae_bound"], bound.mean())
    assert piwae.best_criterion == ("iwae_bound", "max")
