"""The VAE on a linear-Gaussian model, whose evidence is known exactly."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from vaebench.core import Batch
from vaebench.distributions.likelihoods import Gaussian
from vaebench.distributions.posteriors import DiagonalGaussianPosterior
from vaebench.models.vae import VAE
from vaebench.networks import MLP

SIGMA = 0.7
BOUND = 10.0


class Linear:
    """x = W z + b + sigma eps with orthogonal columns of W, so that the exact posterior is diagonal."""

    def __init__(self, shape=(6,), latent_dim=2):
        data_dim = math.prod(shape)
        self.W = torch.linalg.qr(torch.randn(data_dim, latent_dim, dtype=torch.float64)).Q * torch.tensor([2.0, 0.5])
        self.b = torch.randn(data_dim, dtype=torch.float64)
        self.variance = 1 / (1 + (self.W**2).sum(0) / SIGMA**2)
        self.model = VAE(
            shape,
            likelihood=Gaussian(SIGMA),
            latent_dim=latent_dim,
            network=MLP(hidden_dims=()),
            posterior=DiagonalGaussianPosterior(BOUND),
        ).double()
        self.set_posterior()
        with torch.no_grad():
            self.model.decoder[0].weight.copy_(self.W)
            self.model.decoder[0].bias.copy_(self.b)

    def set_posterior(self, shift=0.0, log_var_shift=0.0):
        """Make q(z|x) the exact posterior, moved by a constant."""
        slope = self.variance[:, None] * self.W.T / SIGMA**2
        raw = BOUND * torch.atanh((self.variance.log() + log_var_shift) / BOUND)
        head = self.model.posterior_head.linear
        with torch.no_grad():
            head.weight.copy_(torch.cat([slope, torch.zeros_like(slope)]))
            head.bias.copy_(torch.cat([shift - slope @ self.b, raw]))

    def log_evidence(self, x):
        eye = torch.eye(len(self.b), dtype=torch.float64)
        return MultivariateNormal(self.b, self.W @ self.W.T + SIGMA**2 * eye).log_prob(x.flatten(1))


@pytest.fixture
def linear():
    return Linear()


@pytest.fixture
def x():
    return torch.randn(5, 6, dtype=torch.float64)


def test_at_the_exact_posterior_every_log_weight_is_the_log_evidence(linear, x):
    log_w = linear.model.log_weights(x, 7)
    torch.testing.assert_close(log_w, linear.log_evidence(x).expand(7, 5), rtol=1e-6, atol=1e-6)


def test_at_the_exact_posterior_the_loss_is_minus_the_log_evidence(linear, x):
    model = linear.model
    rows = x[:, None].expand(5, 8_000, 6).reshape(-1, 6)
    distortion, rate = (t.reshape(5, -1) for t in model.distortion_and_rate(rows))
    elbo = -(distortion + rate)
    standard_error = elbo.std(1) / elbo.shape[1] ** 0.5
    assert ((elbo.mean(1) - linear.log_evidence(x)).abs() < 4 * standard_error).all()
    loss = model.loss(Batch(rows), step=0).total
    assert abs(-loss - linear.log_evidence(x).mean()) < 4 * (standard_error.square().sum().sqrt() / 5)


def test_off_the_posterior_the_bound_is_loose_by_the_divergence(linear, x):
    exact = linear.model.posterior(x)
    linear.set_posterior(shift=0.3, log_var_shift=0.5)
    moved = linear.model.posterior(x)
    gap = torch.distributions.kl_divergence(moved, exact)
    assert (gap > 0.1).all()
    rows = x[:, None].expand(5, 8_000, 6).reshape(-1, 6)
    distortion, rate = (t.reshape(5, -1) for t in linear.model.distortion_and_rate(rows))
    slack = linear.log_evidence(x) + (distortion + rate).mean(1) - gap
    assert (slack.abs() < 4 * distortion.std(1) / distortion.shape[1] ** 0.5).all()
    # The importance-weighted estimate closes the gap.
    log_w = linear.model.log_weights(x, 20_000)
    weights = log_w.exp()
    relative_error = weights.std(0) / weights.mean(0) / len(weights) ** 0.5
    estimate = log_w.logsumexp(0) - math.log(len(log_w))
    assert ((estimate - linear.log_evidence(x)).abs() < 4 * relative_error).all()


def test_loss_by_hand(linear, x):
    model = linear.model
    linear.set_posterior(shift=0.3)
    torch.manual_seed(9)
    loss = model.loss(Batch(x), step=3)
    torch.manual_seed(9)
    eps = torch.randn(5, 2, dtype=torch.float64)
    mean = (x - linear.b) @ linear.W * linear.variance / SIGMA**2 + 0.3
    z = mean + linear.variance.sqrt() * eps
    residual = x - (z @ linear.W.T + linear.b)
    distortion = (residual**2 / (2 * SIGMA**2) + math.log(SIGMA) + 0.5 * math.log(2 * math.pi)).sum(1)
    rate = 0.5 * (mean**2 + linear.variance - linear.variance.log() - 1).sum(1)
    torch.testing.assert_close(loss.terms["distortion"], distortion.mean(), rtol=1e-6, atol=0)
    torch.testing.assert_close(loss.terms["rate"], rate.mean(), rtol=1e-6, atol=0)
    torch.testing.assert_close(loss.total, (distortion + rate).mean(), rtol=1e-6, atol=0)
    assert loss.total.requires_grad
    assert not loss.terms["rate"].requires_grad


def test_the_gradient_at_the_exact_posterior_is_zero_in_expectation(linear, x):
    rows = x[:, None].expand(5, 4_000, 6).reshape(-1, 6)
    head = linear.model.posterior_head.linear
    gradients = []
    for _ in range(10):
        head.zero_grad()
        linear.model.loss(Batch(rows), 0).total.backward()
        gradients.append(head.bias.grad.clone())
    stacked = torch.stack(gradients)
    # Student's t with 9 degrees of freedom and 4 coordinates: 6 standard errors is beyond chance.
    assert (stacked.mean(0).abs() < 6 * stacked.std(0) / 10**0.5).all()


def test_training_reaches_the_evidence():
    linear = Linear()
    torch.manual_seed(2)
    data = MultivariateNormal(linear.b, linear.W @ linear.W.T + SIGMA**2 * torch.eye(6, dtype=torch.float64))
    x = data.sample((2_000,))
    model = VAE((6,), likelihood=Gaussian(SIGMA), latent_dim=2, network=MLP(hidden_dims=())).double()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
    for step in range(300):
        optimiser.zero_grad()
        model.loss(Batch(x[step * 200 % 2_000 :][:200]), step).total.backward()
        optimiser.step()
    with torch.no_grad():
        gap = model.loss(Batch(x), 0).total + linear.log_evidence(x).mean()
    assert -0.05 < gap < 0.1  # nats; below zero only as far as 2,000 draws overfit 16 parameters
