"""The adversarial autoencoder: losses by hand, an optimal discriminator, the direction of each step."""

import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from vaebench.core import Batch
from vaebench.data.split import DataSplit
from vaebench.distributions.likelihoods import Bernoulli, Gaussian
from vaebench.distributions.posteriors import DiagonalGaussianPosterior
from vaebench.hardware import collective
from vaebench.models.aae import AAE
from vaebench.networks import MLP, Conv
from vaebench.networks.network import Encoder
from vaebench.trainers.adversarial import AdversarialTrainer


def small(**arguments):
    return AAE(
        (6,),
        likelihood=Gaussian(),
        latent_dim=2,
        network=MLP(hidden_dims=(8,)),
        discriminator=MLP(hidden_dims=(8,), activation="tanh"),
        **arguments,
    ).double()


@pytest.fixture
def x():
    return torch.randn(5, 6, dtype=torch.float64)


def step(model, batch, part, rate):
    """One step of gradient descent of a part on its own loss."""
    parameters = [p for module in model.parts()[part] for p in module.parameters()]
    gradients = torch.autograd.grad(model.losses(batch, 0, part)[part].total, parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= rate * gradient


def test_losses_by_hand(x):
    model = small(adversarial_weight=0.3)
    z = model.posterior(x).mean
    distortion = 0.5 * (x - model.decoder(z)).square().sum(1) + 3 * math.log(2 * math.pi)
    of_posterior = torch.sigmoid(model.discriminator(z))
    torch.manual_seed(3)
    of_prior = torch.sigmoid(model.discriminator(torch.randn(5, 2, dtype=torch.float64)))
    torch.manual_seed(3)
    losses = model.losses(Batch(x), 0)
    torch.testing.assert_close(losses["autoencoder"].total, (distortion - 0.3 * of_posterior.log()).mean())
    torch.testing.assert_close(losses["discriminator"].total, -(of_prior.log() + (1 - of_posterior).log()).mean())
    torch.testing.assert_close(model.validation_loss(Batch(x), 0).total, distortion.mean())


def test_at_the_optimal_discriminator_its_loss_is_a_divergence():
    # q(z) = N(1, 1) and p(z) = N(0, 1) have the log-ratio log p - log q = 1/2 - z, which is a linear discriminator.
    model = AAE((1,), likelihood=Gaussian(), latent_dim=1, network=MLP(()), discriminator=MLP(())).double()
    with torch.no_grad():
        model.posterior_head.linear.weight.fill_(1)
        model.posterior_head.linear.bias.fill_(1)
        model.discriminator.head.weight.fill_(-1)
        model.discriminator.head.bias.fill_(0.5)
    z = torch.linspace(-12, 13, 200_001, dtype=torch.float64)
    p, q = (torch.exp(-0.5 * (z - mean) ** 2) / math.sqrt(2 * math.pi) for mean in (0, 1))
    integrand = p * ((p + q) / 2 / p).log() + q * ((p + q) / 2 / q).log()
    jensen_shannon = -0.5 * torch.trapezoid(integrand, z)
    n = 100_000
    loss = model.losses(Batch(torch.randn(n, 1, dtype=torch.float64)), 0, "discriminator")["discriminator"].total
    # -log D has a standard deviation below 0.4 in each of the two means.
    assert abs(loss - (math.log(4) - 2 * jensen_shannon)) < 4 * 0.4 * math.sqrt(2 / n)


def test_the_encoders_step_raises_the_discriminators_belief_in_the_prior(x):
    model = small(adversarial_weight=1e6)  # the distortion is negligible
    before = model.discriminator(model.posterior(x).mean)
    step(model, Batch(x), "autoencoder", rate=1e-8)
    rise = (model.discriminator(model.posterior(x).mean) - before).mean()
    assert rise > 0


def test_the_discriminators_step_tells_them_apart(x):
    model = small()
    z_prior = torch.randn(4_000, 2, dtype=torch.float64)

    def gap():
        return model.discriminator(z_prior).mean() - model.discriminator(model.posterior(x).mean).mean()

    before = gap()
    step(model, Batch(x.repeat(800, 1)), "discriminator", rate=1e-2)
    assert gap() > before


def test_each_loss_is_that_of_its_part(x):
    model = small()
    losses = model.losses(Batch(x), 0)
    autoencoder = [p for module in model.parts()["autoencoder"] for p in module.parameters()]
    assert torch.autograd.grad(losses["discriminator"].total, autoencoder, allow_unused=True) == (None,) * len(
        autoencoder
    )


class BatchNormTrunk(Encoder):
    """A trunk with running statistics, none of which is in a default discriminator."""

    num_features = 2

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x):
        return self.norm(x)


@dataclass(frozen=True)
class BatchNorm:
    def encoder(self, shape):
        return BatchNormTrunk()

    def decoder(self, latent_dim, shape):
        raise NotImplementedError


def test_the_discriminators_statistics_move_in_its_own_pass_only(x):
    model = AAE((6,), likelihood=Gaussian(), latent_dim=2, network=MLP(()), discriminator=BatchNorm())
    x = x.float()
    trainer = AdversarialTrainer(batch_size=5, num_epochs=1, optimizer="SGD", learning_rate=1e-3)
    trainer.start(model, SimpleNamespace(train=DataSplit(x), validation=DataSplit(x))).train_step(Batch(x))
    norm = model.discriminator.trunk.norm
    assert norm.num_batches_tracked == 2  # draws of the prior, and codes
    assert not any(isinstance(module, nn.BatchNorm1d) for module in small().modules())


def test_the_trainer_gives_each_part_its_own_loss(x):
    model, x = small(adversarial_weight=2.0, posterior=DiagonalGaussianPosterior()).float(), x.float()
    reference = small(adversarial_weight=2.0, posterior=DiagonalGaussianPosterior()).float()
    reference.load_state_dict(model.state_dict())
    trainer = AdversarialTrainer(batch_size=5, num_epochs=1, optimizer="SGD", learning_rate=0.01)
    training = trainer.start(model, SimpleNamespace(train=DataSplit(x), validation=DataSplit(x)))
    torch.manual_seed(6)
    training.train_step(Batch(x))
    torch.manual_seed(6)
    for part in "autoencoder", "discriminator":
        step(reference, Batch(x), part, rate=0.01)
    for parameter, expected in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected)


def test_a_deterministic_encoder_has_no_rate(x):
    model = small()
    assert model.capabilities == {"posterior", "likelihood", "prior"}
    with pytest.raises(
        ValueError, match=r"AAE has no rate: a deterministic encoder .*model/posterior=diagonal_gaussian"
    ):
        model.log_weights(x, 2)
    assert model.sample(3).shape == (3, 6)
    assert AAE.capabilities == {"posterior", "likelihood", "prior", "rate"}  # the class is as it was


def test_a_gaussian_encoder_has_the_elbo(x):
    model = small(posterior=DiagonalGaussianPosterior())
    assert "rate" in model.capabilities
    loss = model.validation_loss(Batch(x), 0)
    torch.testing.assert_close(loss.total, loss.terms["distortion"] + loss.terms["rate"])
    assert model.log_weights(x, 2).shape == (2, 5)


def test_shards_of_a_batch_sum_to_the_whole(x):
    model = small(posterior=DiagonalGaussianPosterior())
    torch.manual_seed(7)
    whole = model.losses(Batch(x), 0)
    for name in whole:
        total = 0.0
        for start, stop in (0, 2), (2, 5):
            torch.manual_seed(7)
            with collective.shard(start, stop, 5):
                total += model.losses(Batch(x[start:stop]), 0)[name].total * (stop - start) / 5
        torch.testing.assert_close(total, whole[name].total)


def test_the_aggregate_posterior_approaches_the_prior():
    torch.manual_seed(1)
    model = AAE(
        (4,), likelihood=Gaussian(0.3), latent_dim=2, network=MLP((32,)), discriminator=MLP((32, 32)),
        adversarial_weight=5.0,
    )  # fmt: skip
    x = 3 + torch.randn(512, 2) @ torch.randn(2, 4)
    with torch.no_grad():
        model.posterior_head.linear.bias.fill_(4)  # start far from the prior
    optimisers = {
        name: torch.optim.Adam([p for module in modules for p in module.parameters()], lr=3e-3)
        for name, modules in model.parts().items()
    }
    start = model.validation_loss(Batch(x), 0).total.item()
    for _ in range(400):
        for name, optimiser in optimisers.items():
            model.zero_grad()
            model.losses(Batch(x[torch.randint(512, (128,))]), 0, name)[name].total.backward()
            optimiser.step()
    z = model.posterior(x).mean.detach()
    assert z.mean(0).abs().max() < 0.5
    assert (z.std(0) - 1).abs().max() < 0.5
    assert model.validation_loss(Batch(x), 0).total.item() < 0.5 * start


@pytest.mark.parametrize(
    ("shape", "network"), [((1, 8, 8), MLP()), ((3, 13, 22), Conv(channels=(4, 8), hidden_dim=16)), ((5,), MLP())]
)
def test_any_shape(shape, network):
    model = AAE(shape, likelihood=Bernoulli(), network=network, discriminator=MLP((16,)))
    batch = Batch(torch.rand(4, *shape).round())
    losses = model.losses(batch, 0)
    assert all(math.isfinite(loss.total.item()) for loss in losses.values())
    assert list(losses) == list(model.parts())
    assert list(model.losses(batch, 0, "discriminator")) == ["discriminator"]


def test_refuses_a_negative_weight():
    with pytest.raises(ValueError, match="adversarial_weight must be at least 0 and finite; got -1"):
        small(adversarial_weight=-1)
