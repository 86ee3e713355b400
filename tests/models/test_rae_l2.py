"""RAE-L2: the objective by hand, and what a model without prior refuses."""

import math
from types import SimpleNamespace

import pytest
import torch

from vaebench.core import Batch
from vaebench.data.split import DataSplit
from vaebench.distributions.likelihoods import Bernoulli, Gaussian
from vaebench.models.rae_l2 import RAEL2
from vaebench.networks import MLP, Conv
from vaebench.trainers.coupled import CoupledOptimizerTrainer

BETA, LAMBDA = 0.3, 0.02


@pytest.fixture
def model():
    return RAEL2(
        (6,),
        likelihood=Gaussian(),
        latent_dim=2,
        network=MLP(hidden_dims=(4,)),
        beta=BETA,
        decoder_weight_decay=LAMBDA,
    ).double()


@pytest.fixture
def x():
    return torch.randn(5, 6, dtype=torch.float64)


def test_objective_by_hand(model, x):
    z = model.posterior_head.linear(torch.relu(x @ model.encoder.layers[0].weight.T + model.encoder.layers[0].bias))
    squared = 0.5 * (x - model.decoder(z)).square().sum(1).mean() + 3 * math.log(2 * math.pi)
    code_norm = 0.5 * (z[:, 0] ** 2 + z[:, 1] ** 2).mean()
    weight_norm = sum((p**2).sum() for p in model.decoder.parameters())
    losses = model.losses(Batch(x), 0)
    torch.testing.assert_close(losses["encoder"].total, squared + BETA * code_norm)
    torch.testing.assert_close(losses["decoder"].total, squared + LAMBDA * weight_norm)
    torch.testing.assert_close(model.validation_loss(Batch(x), 0).total, squared + BETA * code_norm)


def test_each_part_follows_the_gradient_of_the_whole_objective(model, x):
    losses = model.losses(Batch(x), 0)
    z = model.posterior(x).mean
    whole = -model.likelihood(z).log_prob(x).mean() + BETA * 0.5 * z.square().sum(1).mean()
    whole = whole + LAMBDA * sum(p.square().sum() for p in model.decoder.parameters())
    for name, modules in model.parts().items():
        parameters = [p for module in modules for p in module.parameters()]
        own = torch.autograd.grad(losses[name].total, parameters, retain_graph=True)
        for gradient, expected in zip(own, torch.autograd.grad(whole, parameters, retain_graph=True), strict=True):
            torch.testing.assert_close(gradient, expected)


def test_the_decoder_decays_under_a_trainer_made_by_hand(model, x):
    model, x = model.float(), x.float()
    distortion = -model.likelihood(model.posterior(x).mean).log_prob(x).mean()
    before = list(model.decoder.parameters())
    expected = [
        p.detach() - 0.1 * (g + 2 * LAMBDA * p.detach())
        for p, g in zip(before, torch.autograd.grad(distortion, before), strict=True)
    ]
    trainer = CoupledOptimizerTrainer(batch_size=5, num_epochs=1, learning_rate=0.1, optimizer="SGD")
    trainer.start(model, SimpleNamespace(train=DataSplit(x), validation=DataSplit(x))).train_step(Batch(x))
    for parameter, value in zip(model.decoder.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value)


def test_the_posterior_is_a_point(model, x):
    mean, log_var = model.encode(x)
    assert torch.equal(model.posterior(x).rsample((3,)), mean.expand(3, 5, 2))
    assert (log_var == -math.inf).all()
    assert torch.equal(model.reparameterize(mean, log_var), mean)
    assert torch.equal(model.posterior(x).stddev, torch.zeros(5, 2))
    torch.testing.assert_close(model.reconstruct(x), model.decode(mean).detach())
    outputs = model(x)
    assert torch.equal(outputs["z"], mean)
    assert model.interpolate(x[0], x[1], steps=3).shape == (3, 6)


def test_without_prior_and_rate_it_refuses(model, x):
    assert model.capabilities == {"posterior", "likelihood"}
    for call in (model.prior, model.sample):
        with pytest.raises(ValueError, match=r"RAEL2 has no prior: .*sampler=gaussian_mixture"):
            call()
    for call in (lambda: model.log_weights(x, 2), lambda: model.distortion_and_rate(x), lambda: model.loss_fn(x)):
        with pytest.raises(ValueError, match="RAEL2 has no rate: it is a deterministic autoencoder"):
            call()
    with pytest.raises(ValueError, match=r"no density q\(z\|x\)"):
        model.posterior(x).log_prob(torch.zeros(5, 2))


def test_defaults_are_the_authors_in_units_of_a_sum():
    model = RAEL2((1, 32, 32), likelihood=Gaussian())
    pixels, dims = 32 * 32, 16
    # Theirs: mean over pixels of (x - y)^2 + 1e-4 mean over dims of z^2 + 1e-7 |theta|^2; ours is that * pixels / 2.
    assert model.beta / 2 == pytest.approx(pixels / 2 * 1e-4 / dims)
    assert model.decoder_weight_decay == pytest.approx(pixels / 2 * 1e-7)


@pytest.mark.parametrize(
    ("shape", "network"), [((1, 8, 8), MLP()), ((3, 13, 22), Conv(channels=(4, 8), hidden_dim=16)), ((5,), MLP())]
)
def test_any_shape(shape, network):
    model = RAEL2(shape, likelihood=Bernoulli(), network=network)
    batch = Batch(torch.rand(4, *shape).round())
    losses = model.losses(batch, 0)
    assert all(math.isfinite(loss.total.item()) for loss in losses.values())
    assert list(losses) == list(model.parts())
    assert list(model.losses(batch, 0, "decoder")) == ["decoder"]


@pytest.mark.parametrize("argument", ["beta", "decoder_weight_decay"])
def test_refuses_a_negative_weight(argument):
    with pytest.raises(ValueError, match=f"{argument} must be at least 0 and finite; got -1"):
        RAEL2((6,), likelihood=Gaussian(), **{argument: -1.0})
