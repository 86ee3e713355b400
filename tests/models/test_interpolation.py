"""Interpolations and traversals of any model, on one that is small."""

import math

import pytest
import torch

from vaebench.distributions.likelihoods import Bernoulli, Gaussian
from vaebench.models.vae import VAE
from vaebench.networks import MLP

SHAPE = (1, 4, 5)


@pytest.fixture
def model():
    return VAE(SHAPE, likelihood=Bernoulli(), latent_dim=3, network=MLP(hidden_dims=(16,)))


@pytest.fixture
def x():
    return torch.rand(6, *SHAPE).round()


def _picture(model, z):
    """The decoder's pictures, without the methods under test."""
    return torch.sigmoid(model.decoder(z))


@pytest.mark.parametrize("spherical", [False, True])
def test_interpolation_ends_at_the_reconstructions(model, x, spherical):
    path = model.interpolate(x[0], x[1], steps=7, spherical=spherical)
    assert path.shape == (7, *SHAPE)
    ends = model.reconstruct(x[:2], deterministic=True)
    torch.testing.assert_close(path[[0, -1]], ends)


def test_interpolation_is_linear_between_the_means(model, x):
    a, b = model.encode(x[:2]).mean
    middle = model.interpolate(x[0], x[1], steps=5)[1]
    torch.testing.assert_close(middle, _picture(model, 0.75 * a[None] + 0.25 * b[None])[0])


def test_spherical_interpolation_keeps_the_angle_and_the_norm(model):
    """With posterior means of equal norm every point of the path has that norm, at equal angles."""
    flat = VAE((3,), likelihood=Gaussian(), latent_dim=3, network=MLP(hidden_dims=())).double()
    with torch.no_grad():
        flat.posterior_head.linear.weight.copy_(torch.eye(6, 3, dtype=torch.float64))
        flat.posterior_head.linear.bias.zero_()
        flat.decoder[0].weight.copy_(torch.eye(3))
        flat.decoder[0].bias.zero_()
    a, b = torch.tensor([2.0, 0, 0]).double(), torch.tensor([0, 2.0, 0]).double()
    path = flat.interpolate(a, b, steps=4, spherical=True)
    angle = torch.linspace(0, math.pi / 2, 4, dtype=torch.float64)
    torch.testing.assert_close(path, 2 * torch.stack([angle.cos(), angle.sin(), 0 * angle], -1))
    parallel = flat.interpolate(a, 2 * a, steps=3, spherical=True)
    torch.testing.assert_close(parallel[:, 0], torch.tensor([2.0, 3.0, 4.0]).double())


def test_interpolation_takes_examples_with_and_without_a_batch(model, x):
    assert torch.equal(model.interpolate(x[0], x[1:2]), model.interpolate(x[:1], x[1]))


def test_traversal_sets_one_dimension_and_keeps_the_others(model, x):
    pictures = model.latent_traversal(x[0], dim=1, range_vals=(-2.0, 4.0), steps=4)
    z = model.encode(x[:1]).mean.repeat(4, 1)
    z[:, 1] = torch.tensor([-2.0, 0.0, 2.0, 4.0])
    torch.testing.assert_close(pictures, _picture(model, z))
