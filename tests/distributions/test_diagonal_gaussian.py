"""The diagonal Gaussian against torch's, Monte Carlo, and its own definition."""

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from vaebench.distributions.diagonal_gaussian import DiagonalGaussian, StandardNormal
from vaebench.hardware import collective


def _pair(shape=(3, 4), dtype=torch.float64):
    mean, log_var = torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype)
    return DiagonalGaussian(mean, log_var), Independent(Normal(mean, (0.5 * log_var).exp()), 1)


def test_log_prob_entropy_and_moments_equal_torch():
    ours, reference = _pair()
    value = torch.randn(7, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(ours.log_prob(value), reference.log_prob(value))
    torch.testing.assert_close(ours.entropy(), reference.entropy())
    torch.testing.assert_close(ours.variance, reference.variance)
    torch.testing.assert_close(ours.stddev, reference.stddev)
    torch.testing.assert_close(ours.mean, reference.mean)
    assert ours.batch_shape == (3,)
    assert ours.event_shape == (4,)


def test_kl_equals_torch():
    (q, torch_q), (p, torch_p) = _pair(), _pair()
    torch.testing.assert_close(kl_divergence(q, p), kl_divergence(torch_q, torch_p))


def test_score_is_the_gradient_of_the_log_density():
    ours, _ = _pair()
    value = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    for p in (ours, StandardNormal(torch.zeros(4, dtype=torch.float64))):
        (gradient,) = torch.autograd.grad(p.log_prob(value).sum(), value)
        torch.testing.assert_close(p.score(value), gradient)


def test_the_standard_normal_is_the_gaussian_of_mean_and_log_variance_zero():
    zeros = torch.zeros(4, dtype=torch.float64)
    short, long = StandardNormal(zeros), DiagonalGaussian(zeros, zeros)
    q, _ = _pair((5, 3, 4))
    torch.testing.assert_close(short.log_prob(q.mean), long.log_prob(q.mean))
    torch.testing.assert_close(kl_divergence(q, short), kl_divergence(q, long))
    torch.testing.assert_close(kl_divergence(short, long), torch.tensor(0.0, dtype=torch.float64))
    torch.testing.assert_close(short.entropy(), long.entropy())
    assert short.expand((2,)).batch_shape == (2,)


def test_kl_is_zero_only_at_equality():
    q, _ = _pair()
    torch.testing.assert_close(kl_divergence(q, q), torch.zeros(3, dtype=torch.float64))
    other = DiagonalGaussian(q.mean + 0.1, q.log_var)
    assert (kl_divergence(q, other) > 0).all()


def test_kl_equals_its_monte_carlo_estimate():
    (q, _), (p, _) = _pair(), _pair()
    z = q.sample((40_000,))
    log_ratio = q.log_prob(z) - p.log_prob(z)
    standard_error = log_ratio.std(0) / len(z) ** 0.5
    assert ((log_ratio.mean(0) - kl_divergence(q, p)).abs() < 4 * standard_error).all()


def test_kl_to_the_standard_normal_broadcasts_over_leading_dimensions():
    q, _ = _pair((5, 3, 4))
    zeros = torch.zeros(4, dtype=torch.float64)
    rate = kl_divergence(q, DiagonalGaussian(zeros, zeros))
    by_hand = 0.5 * (q.mean**2 + q.variance - q.log_var - 1).sum(-1)
    torch.testing.assert_close(rate, by_hand)
    assert rate.shape == (5, 3)


def test_sample_moments():
    q, _ = _pair()
    z = q.sample((40_000,))
    assert ((z.mean(0) - q.mean).abs() < 4 * q.stddev / len(z) ** 0.5).all()
    # The standard error of a Gaussian's sample variance is variance * sqrt(2 / n).
    assert ((z.var(0) - q.variance).abs() < 4 * q.variance * (2 / len(z)) ** 0.5).all()


def test_rsample_is_mean_plus_sigma_eps_with_its_gradients():
    mean = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    log_var = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(1)
    z = DiagonalGaussian(mean, log_var).rsample((2,))
    torch.manual_seed(1)
    eps = torch.randn(2, 3, 4, dtype=torch.float64)
    sigma = (0.5 * log_var).exp()
    torch.testing.assert_close(z, mean + sigma * eps)
    d_mean, d_log_var = torch.autograd.grad(z.sum(), (mean, log_var))
    torch.testing.assert_close(d_mean, torch.full_like(mean, 2.0))
    torch.testing.assert_close(d_log_var, (0.5 * sigma * eps).sum(0).detach())


def test_sample_carries_no_gradient():
    q = DiagonalGaussian(torch.zeros(2, 3, requires_grad=True), torch.zeros(2, 3))
    assert not q.sample().requires_grad
    assert q.rsample().requires_grad


@pytest.mark.parametrize("sample_shape", [(), (5,), (2, 3)])
def test_shards_draw_the_rows_of_the_global_batch(sample_shape):
    q, _ = _pair((7, 4))
    torch.manual_seed(3)
    whole = q.rsample(sample_shape)
    parts = []
    for start, stop in [(0, 3), (3, 7)]:
        torch.manual_seed(3)
        with collective.shard(start, stop, 7):
            parts.append(DiagonalGaussian(q.mean[start:stop], q.log_var[start:stop]).rsample(sample_shape))
    assert torch.equal(torch.cat(parts, len(sample_shape)), whole)


def test_unpacks_as_mean_and_log_var():
    q, _ = _pair()
    mean, log_var = q
    assert mean is q.mean
    assert log_var is q.log_var


def test_expanded_it_is_one_draw_for_each_row_of_a_shard():
    p = DiagonalGaussian(torch.tensor([1.0, -1.0]), torch.tensor([0.0, 2.0]))
    torch.manual_seed(3)
    whole = p.expand((5,)).sample()
    torch.manual_seed(3)
    with collective.shard(2, 5, 5):
        part = p.expand((3,)).sample()
    assert torch.equal(part, whole[2:])
    torch.testing.assert_close(p.expand((5,)).log_prob(whole), p.log_prob(whole))
