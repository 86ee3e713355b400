"""Quantisers without learned codes: FSQ and LFQ."""

import itertools
import math

import pytest
import torch

from vaebench.distributions.quantizers.fsq import FSQ
from vaebench.distributions.quantizers.lfq import LFQ


@pytest.mark.parametrize("levels", [(2,), (3,), (8, 5, 5, 5), (2, 3, 4)])
def test_every_level_is_reached_and_numbered_once(levels):
    quantizer = FSQ(levels).build()
    z = torch.linspace(-6, 6, 2001).reshape(-1, 1, 1, 1).expand(-1, len(levels), 1, 1)
    values = quantizer(z).z
    for channel, level in enumerate(levels):
        found = values[:, channel].unique()
        expected = (torch.arange(level) - level // 2) / (level // 2)
        torch.testing.assert_close(found, expected)
    codes = torch.arange(math.prod(levels)).reshape(-1, 1, 1)
    points = quantizer.embed(codes)
    assert len(points.flatten(1).unique(dim=0)) == math.prod(levels)
    for code, digits in zip(codes.flatten(), itertools.product(*(range(n) for n in reversed(levels))), strict=True):
        expected = [(d - n // 2) / (n // 2) for d, n in zip(reversed(digits), levels, strict=True)]
        torch.testing.assert_close(points[code].flatten(), torch.tensor(expected))


def test_fsq_codes_stand_for_its_points_and_zero_stays_zero():
    quantizer, z = FSQ((8, 5, 2)).build(), torch.randn(4, 3, 2, 5)
    quantized = quantizer(z)
    torch.testing.assert_close(quantizer.embed(quantized.codes), quantized.z)
    assert quantized.codes.max() < quantizer.num_codes == 80
    torch.testing.assert_close(quantizer.bound(torch.zeros(1, 3, 1, 1)), torch.zeros(1, 3, 1, 1), atol=1e-5, rtol=0)
    assert not quantized.losses


def test_fsq_spreads_vectors_that_hardly_vary():
    z = 5 + 1e-3 * torch.randn(500, 4, 1, 1)
    quantizer, as_published = FSQ().build(), FSQ(decay=None).build()
    for some in (quantizer, as_published):
        some.start(z)
        some.update(z)
    assert len(quantizer(z).codes.unique()) > 200
    assert len(as_published(z).codes.unique()) == 1


def test_fsq_follows_mean_and_variance():
    quantizer = FSQ((8, 5), decay=0.75).build().double()
    mean, variance = torch.zeros(2).double(), torch.ones(2).double()
    for step in range(3):
        z = (step + 1) * torch.randn(7, 2, 3, 2).double() + step
        vectors = z.movedim(1, -1).reshape(-1, 2)
        if step == 0:
            quantizer.start(z)
            mean, variance = vectors.mean(0), vectors.var(0, correction=0)
        quantizer.update(z)
        mean = 0.75 * mean + 0.25 * vectors.mean(0)
        variance = 0.75 * variance + 0.25 * vectors.var(0, correction=0)
    torch.testing.assert_close(quantizer.mean, mean)
    torch.testing.assert_close(quantizer.variance, variance)
    standardized = (z - mean.reshape(1, 2, 1, 1)) / variance.sqrt().reshape(1, 2, 1, 1)
    torch.testing.assert_close(quantizer.bound(z), FSQ((8, 5)).build().double().bound(standardized))


def test_fsq_gradient_is_that_of_the_bound():
    quantizer = FSQ((8, 5)).build().double()
    z = torch.randn(3, 2, 2, 2).double().requires_grad_()
    got = torch.autograd.grad(quantizer(z).z.sum(), z)[0]
    bound = quantizer.bound(z) / torch.tensor([4, 2])[None, :, None, None]
    torch.testing.assert_close(got, torch.autograd.grad(bound.sum(), z)[0])


def test_lfq_codes_are_the_signs():
    quantizer, z = LFQ(4).build(), torch.randn(3, 4, 2, 5)
    quantized = quantizer(z)
    torch.testing.assert_close(quantized.z, z.sign())
    torch.testing.assert_close(quantizer.embed(quantized.codes), z.sign())
    bits = (z > 0).long()
    assert torch.equal(quantized.codes, bits[:, 0] + 2 * bits[:, 1] + 4 * bits[:, 2] + 8 * bits[:, 3])


def test_lfq_has_a_slope_where_codes_are_as_good_as_impossible():
    z = torch.full((2, 3, 1, 1), 40.0, requires_grad=True)
    certainty, usage = LFQ(3).build().entropies(z)
    (certainty.sum() + usage).backward()
    assert usage == 0
    assert (z.grad == 0).all()


def test_lfq_entropies_are_those_of_the_distribution_over_all_codes():
    tau = 0.3
    quantizer, z = LFQ(3, inverse_temperature=tau).build().double(), torch.randn(4, 3, 2, 2).double()
    rows = z.movedim(1, -1)
    squared = (rows[..., None, :] - quantizer.corners).square().sum(-1)
    q = torch.softmax(-tau * squared, -1)
    certainty, usage = quantizer.entropies(z)
    torch.testing.assert_close(certainty, -(q * q.log()).sum((1, 2, 3)))
    mean = q.mean((0, 1, 2))
    torch.testing.assert_close(usage, -(mean * mean.log()).sum())
    losses = LFQ(3, 0.5, 0.2, 2.0, tau).build().double()(z).losses
    torch.testing.assert_close(losses["entropy"], 0.2 * (certainty - 2.0 * 4 * usage))
    torch.testing.assert_close(losses["commitment"], 0.5 * (z - z.sign()).square().sum((1, 2, 3)))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: FSQ(()), "levels must name at least one channel"),
        (lambda: FSQ((8, 1)), "levels must be a whole number of at least 2; got 1"),
        (lambda: FSQ(decay=1.0), "decay must be at least 0 and below 1, or null; got 1.0"),
        (lambda: LFQ(0), "num_bits must be a whole number of at least 1"),
        (lambda: LFQ(20), "num_bits must be a whole number of at least 1 and at most 14; got 20"),
        (lambda: LFQ(inverse_temperature=0), "inverse_temperature must be above 0"),
    ],
)
def test_refusals(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()
