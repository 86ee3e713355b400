"""Distances between samples and images: closed forms, hand-made points, equal and disjoint laws."""

from __future__ import annotations

import math

import pytest
import torch

from vaebench.data.split import DataSplit
from vaebench.distributions.likelihoods import Gaussian
from vaebench.metrics.base import NotApplicableError
from vaebench.metrics.density_coverage import DensityCoverage
from vaebench.metrics.kid import KID, squared_mmd
from vaebench.metrics.neighbours import radii
from vaebench.metrics.precision_recall import PrecisionRecall
from vaebench.models.vae import VAE
from vaebench.networks import MLP


def judged(metric, images, samples):
    dim = images.shape[1]
    model = VAE((dim,), likelihood=Gaussian(), latent_dim=2, network=MLP(hidden_dims=()))
    return metric(model, DataSplit(images), draw=lambda n: samples[:n], batch_size=200)


def test_the_kernel_distance_by_its_definition():
    x, y = torch.randn(23, 3, dtype=torch.float64), torch.randn(31, 3, dtype=torch.float64) + 0.5

    def k(a, b):
        return (a @ b.T / 3 + 1) ** 3

    def off_diagonal(m):
        return (m.sum() - m.diagonal().sum()) / (len(m) * (len(m) - 1))

    expected = off_diagonal(k(x, x)) + off_diagonal(k(y, y)) - 2 * k(x, y).mean()
    value, left_out = squared_mmd(x, y)
    assert value == pytest.approx(expected.item())
    a, b = x.tensor_split(10), y.tensor_split(10)
    kept_x, kept_y = torch.cat(a[:4] + a[5:]), torch.cat(b[:4] + b[5:])
    assert left_out[4] == pytest.approx(squared_mmd(kept_x, kept_y)[0])


def test_the_kernel_distance_of_one_law_is_zero_on_average_with_the_error_that_it_states():
    torch.manual_seed(0)
    found = [judged(KID(), torch.randn(60, 2), torch.randn(60, 2)).values["kid_pixels"] for _ in range(200)]
    values = torch.tensor([estimate.value for estimate in found])
    assert abs(values.mean().item()) < 4 * values.std().item() / math.sqrt(200)
    shifted = judged(KID(), torch.randn(500, 2), torch.randn(500, 2) + 1).values["kid_pixels"]
    assert shifted.value > 5 * shifted.standard_error


def test_the_kernel_distance_of_shifted_gaussians_in_closed_form():
    """In one dimension k = (xy + 1)^3 = 1 + 3xy + 3x^2 y^2 + x^3 y^3: MMD^2 compares the first three moments."""
    torch.manual_seed(0)
    n, shift = 4000, 0.7
    found = judged(KID(), torch.randn(n, 1), torch.randn(n, 1) + shift).values["kid_pixels"]
    m1, m2, m3 = shift, shift**2, shift**3 + 3 * shift  # differences of E[x], E[x^2], E[x^3]
    expected = 3 * m1**2 + 3 * m2**2 + m3**2
    assert found.value == pytest.approx(expected, abs=4 * found.standard_error)


def test_radii_by_hand():
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0]]).double()
    assert radii(x, 1).tolist() == [1, 1, 2, 4]
    assert radii(x, 2).tolist() == [3, 2, 3, 6]


def test_precision_and_recall_by_hand():
    images = torch.tensor([[0.0], [1.0], [2.0], [10.0]])  # radii with k = 1: 1, 1, 1, 8
    samples = torch.tensor([[-0.5], [0.5], [3.5], [30.0]])  # radii: 1, 1, 3, 26.5
    found = judged(PrecisionRecall(k=1), images, samples).values
    # -0.5 is near 0, 0.5 near 0 and 1, 3.5 within 8 of 10, and 30 near nobody.
    assert found["precision_pixels"].value == 0.75
    # 30 reaches down to 3.5 and so holds 10; 3.5 reaches 0.5 to 6.5 and holds 1 and 2; 0 is near -0.5.
    assert found["recall_pixels"].value == 1
    found = judged(DensityCoverage(k=1), images, samples).values
    # -0.5 lies in one neighbourhood, 0.5 in two, 3.5 in one: 4 of 4 samples; all but the image at 2 hold a sample.
    assert found["density_pixels"].value == 1
    assert found["coverage_pixels"].value == 0.75


def test_one_law_and_disjoint_laws():
    torch.manual_seed(0)
    images, samples = torch.randn(800, 2), torch.randn(800, 2)
    same = {**judged(PrecisionRecall(), images, samples).values, **judged(DensityCoverage(), images, samples).values}
    assert min(same["precision_pixels"].value, same["recall_pixels"].value) > 0.9
    assert same["density_pixels"].value == pytest.approx(1, abs=5 * same["density_pixels"].standard_error)
    assert same["coverage_pixels"].value == pytest.approx(1 - 2**-5, abs=0.03)
    far = {**judged(PrecisionRecall(), images, samples + 100).values}
    far |= judged(DensityCoverage(), images, samples + 100).values
    assert {name: estimate.value for name, estimate in far.items()} == dict.fromkeys(far, 0.0)


def test_a_collapsed_sampler_is_precise_and_recalls_nothing():
    torch.manual_seed(0)
    images = torch.randn(400, 2)
    samples = 0.01 * torch.randn(400, 2)
    found = judged(PrecisionRecall(), images, samples).values
    assert found["precision_pixels"].value > 0.95
    assert found["recall_pixels"].value < 0.05
    assert judged(DensityCoverage(), images, samples).values["coverage_pixels"].value < 0.1


def test_too_few_images_are_refused():
    for metric in (KID(), PrecisionRecall(k=4), DensityCoverage(k=4)):
        with pytest.raises(NotApplicableError, match="raise num_examples"):
            judged(metric, torch.randn(4, 2), torch.randn(4, 2))
    with pytest.raises(ValueError, match="num_samples must be a whole number of above 3, or null; got 2"):
        PrecisionRecall(num_samples=2)
