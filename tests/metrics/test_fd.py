from __future__ import annotations

import pytest
import torch

from vaebench.data.split import DataSplit
from vaebench.distributions.likelihoods import Gaussian
from vaebench.metrics.base import NotApplicableError
from vaebench.metrics.fd import FD, frechet_distance
from vaebench.models.vae import VAE
from vaebench.networks import MLP


def model(dim=3):
    return VAE((dim,), likelihood=Gaussian(), latent_dim=2, network=MLP(hidden_dims=()))


def test_commuting_covariances_by_hand():
    mean, zero = torch.tensor([1.0, -2.0]).double(), torch.zeros(2).double()
    found = frechet_distance(mean, torch.diag(torch.tensor([4.0, 9.0])).double(), zero, torch.eye(2).double())
    # 1 + 4 from the means, (2 - 1)^2 + (3 - 1)^2 from the deviations
    assert found == pytest.approx(10)


def test_covariances_that_do_not_commute():
    a = torch.randn(4, 4, dtype=torch.float64)
    b = torch.randn(4, 4, dtype=torch.float64)
    first, second = a @ a.T, b @ b.T
    zero = torch.zeros(4).double()
    # tr (C1 C2)^(1/2) from the eigenvalues of a product that is not symmetric
    cross = torch.linalg.eigvals(first @ second).real.sqrt().sum()
    expected = (first.trace() + second.trace() - 2 * cross).item()
    assert frechet_distance(zero, first, zero, second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(zero, first, zero, first) == pytest.approx(0, abs=1e-9)


def test_samples_of_two_gaussians_come_near_the_closed_form():
    n, shift, scale = 20_000, 0.5, 1.5
    images = torch.randn(n, 3)
    samples = shift + scale * torch.randn(n, 3)
    found = FD()(model(), DataSplit(images), draw=lambda k: samples[:k], batch_size=5000, source="a test")
    estimate = found.values["fd_pixels"]
    assert estimate.value == pytest.approx(3 * (shift**2 + (scale - 1) ** 2), abs=4 * estimate.standard_error)
    assert 0.005 < estimate.standard_error < 0.05
    assert estimate.n == n
    assert "a test" in found.how
    assert "not the FID" in found.how


def test_the_error_is_that_of_repetitions():
    torch.manual_seed(0)
    found = []
    for _ in range(200):
        images, samples = torch.randn(400, 2), 1 + torch.randn(400, 2)
        found.append(FD()(model(2), DataSplit(images), draw=lambda k, s=samples: s[:k]).values["fd_pixels"])
    spread = torch.tensor([estimate.value for estimate in found]).std().item()
    typical = torch.tensor([estimate.standard_error for estimate in found]).median().item()
    assert typical == pytest.approx(spread, rel=0.25)


def test_prior_samples_and_equal_numbers_by_default():
    found = FD()(model(), DataSplit(torch.randn(60, 3)))
    assert found.details["num_samples"] == found.details["num_images"] == 60
    assert found.details["source"] == "the prior"
    assert FD(30)(model(), DataSplit(torch.randn(60, 3))).values["fd_pixels"].n == 30


def test_too_few_images_are_refused():
    with pytest.raises(NotApplicableError, match="raise num_examples"):
        FD()(model(), DataSplit(torch.randn(10, 3)))
    with pytest.raises(ValueError, match="num_samples must be a whole number of at least 20, or null; got 3"):
        FD(3)
