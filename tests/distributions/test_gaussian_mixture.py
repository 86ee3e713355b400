"""The mixture against torch's own, in value, in gradient and in its draws."""

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from vaebench.distributions.gaussian_mixture import DiagonalGaussianMixture


@pytest.fixture
def mixture():
    return DiagonalGaussianMixture(2 * torch.randn(4, 3), torch.randn(4, 3))


def by_torch(mixture):
    components = Independent(Normal(mixture.loc, (0.5 * mixture.log_var).exp()), 1)
    return MixtureSameFamily(Categorical(torch.ones(len(mixture.loc))), components)


def test_density_and_moments_are_those_of_torch(mixture):
    z = 2 * torch.randn(5, 6, 3)
    torch.testing.assert_close(mixture.log_prob(z), by_torch(mixture).log_prob(z))
    torch.testing.assert_close(mixture.mean, by_torch(mixture).mean)
    torch.testing.assert_close(mixture.variance, by_torch(mixture).variance)


def test_narrow_components_far_from_zero_keep_their_precision():
    mean, log_var = 50 + torch.randn(3, 2), torch.full((3, 2), -10.0)
    mixture = DiagonalGaussianMixture(mean, log_var)
    z = mean + 0.01 * torch.randn(3, 2)
    exact = by_torch(DiagonalGaussianMixture(mean.double(), log_var.double())).log_prob(z.double())
    torch.testing.assert_close(mixture.log_prob(z).double(), exact, rtol=1e-6, atol=1e-5)


def test_gradients_reach_the_components(mixture):
    mean, log_var = (t.clone().requires_grad_() for t in (mixture.loc, mixture.log_var))
    z = torch.randn(5, 3, requires_grad=True)
    ours = torch.autograd.grad(DiagonalGaussianMixture(mean, log_var).log_prob(z).sum(), (mean, log_var, z))
    theirs = torch.autograd.grad(by_torch(DiagonalGaussianMixture(mean, log_var)).log_prob(z).sum(), (mean, log_var, z))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("draw", [lambda m, n: m.sample((n,)), lambda m, n: m.expand((n,)).sample()])
def test_draws_have_its_moments_and_its_components(mixture, draw):
    z = draw(mixture, 40_000)
    assert z.shape == (40_000, 3)
    error = (mixture.variance / 40_000).sqrt()
    assert ((z.mean(0) - mixture.mean).abs() < 4 * error).all()
    squares = (z - mixture.mean).square()
    assert ((squares.mean(0) - mixture.variance).abs() < 4 * squares.std(0) / 200).all()
    apart = DiagonalGaussianMixture(torch.arange(4.0)[:, None] * 100, torch.zeros(4, 1))
    counts = torch.bincount((draw(apart, 4_000) / 100).round().long().flatten(), minlength=4)
    assert ((counts - 1000).abs() < 4 * 750**0.5).all()


def test_shapes(mixture):
    assert mixture.sample().shape == mixture.mean.shape == (3,)
    assert mixture.expand((7,)).mean.shape == (7, 3)
    assert mixture.expand((7,)).sample((2,)).shape == (2, 7, 3)
    assert mixture.expand((7,)).batch_shape == (7,)
