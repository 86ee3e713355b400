"""Likelihoods: normalised, with the moments of their own density, stable at the extremes."""

import math

import pytest
import torch
from scipy import integrate, stats

from vaebench.distributions.likelihoods import (
    Bernoulli,
    Binomial,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Gaussian,
)

LOGITS = [-30.0, -8.0, -1.0, -0.11, -0.1001, -0.0999, -0.01, -1e-4, 0.0, 1e-6, 0.0999, 0.1001, 0.3, 2.0, 12.0, 30.0]


def _density(logit):
    return ContinuousBernoulli()(torch.tensor([logit], dtype=torch.float64), 1)


def _quadrature(logit, power):
    """Integral of x^power times the density over [0, 1]."""
    p = _density(logit)

    def integrand(x):
        return x**power * p.log_prob(torch.tensor([x], dtype=torch.float64)).exp().item()

    knots = [0.5 / abs(logit), 1 - 0.5 / abs(logit)] if abs(logit) > 1 else None
    return integrate.quad(integrand, 0, 1, points=knots, epsabs=1e-11)[0]


class TestContinuousBernoulli:
    @pytest.mark.parametrize("logit", LOGITS)
    def test_integrates_to_one(self, logit):
        assert _quadrature(logit, 0) == pytest.approx(1, abs=1e-9)

    @pytest.mark.parametrize("logit", LOGITS)
    def test_mean_is_the_first_moment(self, logit):
        assert _density(logit).mean.item() == pytest.approx(_quadrature(logit, 1), abs=1e-9)

    def test_equals_torch_where_torch_is_accurate(self):
        logits = torch.tensor([-5.0, -2.0, -0.7, 0.6, 1.5, 5.0], dtype=torch.float64)[:, None]
        value = torch.linspace(0, 1, 11, dtype=torch.float64)[:, None, None]
        reference = torch.distributions.ContinuousBernoulli(logits=logits)
        ours = ContinuousBernoulli()(logits, 1)
        torch.testing.assert_close(ours.log_prob(value), reference.log_prob(value).sum(-1), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ours.mean, reference.mean, rtol=1e-6, atol=1e-6)

    def test_float32_agrees_with_float64(self):
        logits = torch.cat([torch.linspace(-30, 30, 1001), torch.linspace(-0.2, 0.2, 1001)])[:, None]
        value = torch.rand(len(logits), 1)
        single, double = ContinuousBernoulli()(logits, 1), ContinuousBernoulli()(logits.double(), 1)
        torch.testing.assert_close(
            single.log_prob(value).double(), double.log_prob(value.double()), rtol=1e-6, atol=1e-5
        )
        torch.testing.assert_close(single.mean.double(), double.mean, rtol=0, atol=5e-6)

    def test_gradient_is_value_minus_mean_and_never_saturates(self):
        # An exponential family: d log p / d logit = x - E[x].
        logits = torch.tensor([-200.0, -30.0, -0.1001, -0.05, 0.0, 0.0999, 3.0, 30.0, 200.0]).requires_grad_()
        value = torch.full_like(logits, 0.25)
        ContinuousBernoulli()(logits[:, None], 1).log_prob(value[:, None]).sum().backward()
        expected = value - ContinuousBernoulli()(logits.detach()[:, None], 1).mean[:, 0]
        torch.testing.assert_close(logits.grad, expected, rtol=1e-4, atol=1e-5)
        assert logits.grad.abs().min() > 0.1

    @pytest.mark.parametrize("logit", [-300.0, -30.0, -1.0, -1e-4, 0.0, 0.05, 2.0, 30.0, 300.0])
    def test_sample_moments(self, logit):
        p = ContinuousBernoulli()(torch.tensor([logit]), 1)
        x = p.sample((40_000,)).double()
        assert x.min() >= 0
        assert x.max() <= 1
        assert abs(x.mean() - p.mean.double()) < 4 * x.std() / len(x) ** 0.5

    @pytest.mark.parametrize("logit", [-20.0, -0.5, 0.0, 3.0, 20.0])
    def test_samples_follow_the_distribution_function(self, logit):
        x = ContinuousBernoulli()(torch.tensor([logit], dtype=torch.float64), 1).sample((5_000,))[:, 0].numpy()

        def cdf(t):
            return t if logit == 0 else (torch.expm1(torch.as_tensor(logit * t)) / math.expm1(logit)).numpy()

        assert stats.kstest(x, cdf).pvalue > 1e-4

    def test_has_no_mass_on_a_grid(self):
        assert not ContinuousBernoulli().is_discrete


def _levels(n):
    return torch.arange(n, dtype=torch.float32) / (n - 1)


def _extreme_logistics():
    """Locations far outside and inside the range, at the sharpest and at very wide scales, float32."""
    location = torch.tensor([-50.0, -3.0, -0.5, 0.0, 0.001, 0.37, 0.5, 0.998, 1.0, 1.5, 4.0, 50.0]) - 0.5
    log_scale = torch.tensor([-100.0, -10.0, -5.0, -2.0, 0.0, 2.0, 5.0, 12.0])
    return torch.cartesian_prod(location, log_scale)


class TestDiscretizedLogistic:
    @pytest.mark.parametrize("n", [2, 3, 17, 256])
    def test_masses_sum_to_one_in_float32(self, n):
        params = _extreme_logistics()
        log_mass = DiscretizedLogistic(n)(params, 1).log_prob(_levels(n)[:, None, None])
        assert log_mass.shape == (n, len(params))
        assert log_mass.isfinite().all()
        torch.testing.assert_close(log_mass.double().logsumexp(0), torch.zeros(len(params)).double(), rtol=0, atol=2e-5)

    @pytest.mark.parametrize("n", [2, 17, 256])
    def test_mean_is_the_sum_of_value_times_mass(self, n):
        params = _extreme_logistics()
        p = DiscretizedLogistic(n)(params, 1)
        mass = p.log_prob(_levels(n)[:, None, None]).double().exp()
        torch.testing.assert_close(p.mean[:, 0].double(), _levels(n).double() @ mass, rtol=0, atol=2e-5)

    def test_mass_is_the_difference_of_the_logistic_distribution_function(self):
        params = torch.tensor([[0.1, 0.3]], dtype=torch.float64)  # location 0.6
        scale = math.exp(-7 + math.log1p(math.exp(5.3)))
        edges = (torch.arange(1, 16, dtype=torch.float64) - 0.5) / 15
        cdf = torch.cat([torch.zeros(1), torch.sigmoid((edges - 0.6) / scale), torch.ones(1)])
        mass = DiscretizedLogistic(16)(params, 1).log_prob(_levels(16).double()[:, None, None])[:, 0].exp()
        torch.testing.assert_close(mass, cdf.diff(), rtol=1e-6, atol=1e-9)

    @pytest.mark.parametrize("params", [(-0.2, 0.0), (0.0, -3.0), (0.3, -1.0), (0.6, 0.5)])
    def test_sample_frequencies(self, params):
        p = DiscretizedLogistic(17)(torch.tensor(params), 1)
        level = (p.sample((20_000,))[:, 0] * 16).round().long()
        observed = level.bincount(minlength=17).double()
        expected = p.log_prob(_levels(17)[:, None]).double().exp()
        expected = expected / expected.sum() * len(level)
        is_frequent = expected >= 5  # rare levels are pooled, as the chi-square approximation wants
        pool = torch.stack([observed[~is_frequent].sum(), expected[~is_frequent].sum()])
        observed, expected = observed[is_frequent], expected[is_frequent]
        if pool[1] > 0:
            observed, expected = torch.cat([observed, pool[:1]]), torch.cat([expected, pool[1:]])
        assert stats.chisquare(observed.numpy(), expected.numpy()).pvalue > 1e-4

    def test_gradients_never_vanish_far_away(self):
        params = torch.tensor([[20.0, -100.0], [-20.0, -100.0]], requires_grad=True)
        DiscretizedLogistic()(params, 1).log_prob(torch.tensor([[0.5], [0.5]])).sum().backward()
        assert params.grad.isfinite().all()
        assert params.grad[0, 0] < -100
        assert params.grad[1, 0] > 100

    def test_takes_locations_then_log_scales_along_the_channels(self):
        likelihood = DiscretizedLogistic()
        assert likelihood.params_shape((3, 5, 7)) == (6, 5, 7)
        assert likelihood.params_shape((4,)) == (8,)
        params = torch.zeros(2, 6, 5, 7)
        params[:, :3] = torch.tensor([-0.4, 0.0, 0.4])[:, None, None]
        params[:, 3:] = -3.0
        mean = likelihood(params, 3).mean
        assert mean.shape == (2, 3, 5, 7)
        torch.testing.assert_close(mean.mean((0, 2, 3)), torch.tensor([0.1, 0.5, 0.9]), rtol=0, atol=0.01)

    def test_refuses_one_level(self):
        with pytest.raises(ValueError, match="num_levels must be a whole number of at least 2; got 1"):
            DiscretizedLogistic(1)


class TestBinomial:
    @pytest.mark.parametrize("n", [1, 16, 255])
    def test_equals_torch(self, n):
        logits = torch.linspace(-9, 9, 13, dtype=torch.float64)[:, None]
        ours, reference = Binomial(n)(logits, 1), torch.distributions.Binomial(n, logits=logits)
        k = torch.arange(n + 1, dtype=torch.float64)[:, None, None]
        torch.testing.assert_close(ours.log_prob(k / n), reference.log_prob(k).sum(-1))
        torch.testing.assert_close(ours.mean, reference.mean / n)
        torch.testing.assert_close(ours.log_prob(k / n).exp().sum(0), torch.ones(13, dtype=torch.float64))

    def test_float32_masses_sum_to_one_at_extreme_logits(self):
        logits = torch.tensor([-60.0, -20.0, 0.0, 20.0, 60.0])[:, None]
        mass = Binomial(16)(logits, 1).log_prob(_levels(17)[:, None, None])
        torch.testing.assert_close(mass.double().logsumexp(0), torch.zeros(5).double(), rtol=0, atol=1e-5)

    def test_sample_frequencies(self):
        p = Binomial(6)(torch.tensor([0.4]), 1)
        counts = (p.sample((20_000,))[:, 0] * 6).round().long().bincount(minlength=7)
        expected = p.log_prob(_levels(7)[:, None]).double().exp()
        expected = expected / expected.sum() * 20_000
        assert stats.chisquare(counts.double().numpy(), expected.numpy()).pvalue > 1e-4

    def test_refuses_no_count(self):
        with pytest.raises(ValueError, match="total_count must be a whole number of at least 1; got 0"):
            Binomial(0)


class TestBernoulli:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_log_prob_equals_torch_at_any_logit(self, dtype):
        logits = torch.linspace(-60, 60, 241, dtype=dtype)
        for value in (0.0, 1.0):
            x = torch.full_like(logits, value)
            theirs = torch.distributions.Bernoulli(logits=logits, validate_args=False).log_prob(x)
            torch.testing.assert_close(
                Bernoulli()(logits, 0).log_prob(x), theirs, rtol=1e-6, atol=torch.finfo(dtype).eps * 60
            )

    def test_log_prob_is_the_log_of_the_sigmoid(self):
        logits = torch.tensor([[-3.0, 0.5], [200.0, -200.0]], dtype=torch.float64)
        p = Bernoulli()(logits, 1)
        value = torch.tensor([1.0, 0.0], dtype=torch.float64)
        expected = torch.nn.functional.logsigmoid(torch.stack([logits[:, 0], -logits[:, 1]], -1)).sum(-1)
        torch.testing.assert_close(p.log_prob(value), expected)
        torch.testing.assert_close(p.mean, torch.sigmoid(logits))


class TestGaussian:
    @pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
    def test_keeps_its_constant(self, scale):
        p = Gaussian(scale)(torch.zeros(2, 1, 4, 5), 3)
        at_mean = -20 * (math.log(scale) + 0.5 * math.log(2 * math.pi))
        torch.testing.assert_close(p.log_prob(torch.zeros(1, 4, 5)), torch.full((2,), at_mean))
        one_sigma = p.log_prob(torch.full((1, 4, 5), scale))
        torch.testing.assert_close(one_sigma, torch.full((2,), at_mean - 10))

    def test_learned_scale_is_a_parameter_whose_optimum_is_the_deviation(self):
        likelihood = Gaussian(0.5, learn_scale=True)
        assert [name for name, _ in likelihood.named_parameters()] == ["log_scale"]
        likelihood(torch.zeros(1, 10), 1).log_prob(torch.full((1, 10), 0.5)).sum().backward()
        torch.testing.assert_close(likelihood.log_scale.grad, torch.tensor(0.0), rtol=0, atol=1e-5)
        assert not list(Gaussian(0.5).parameters())

    def test_refuses_a_scale_of_zero(self):
        with pytest.raises(ValueError, match="scale must be above 0 and finite; got 0"):
            Gaussian(0)


ALL = [Bernoulli(), ContinuousBernoulli(), Gaussian(), Binomial(16), DiscretizedLogistic(17)]


@pytest.mark.parametrize("likelihood", ALL, ids=lambda x: type(x).__name__)
class TestEvery:
    def test_sums_over_the_event_for_any_leading_dimensions(self, likelihood):
        shape = (2, 3, 4)
        params = torch.randn(6, 5, *likelihood.params_shape(shape))
        x = torch.randint(0, 2, (5, *shape)).float()
        p = likelihood(params, 3)
        assert p.event_shape == shape
        log_prob = p.log_prob(x)
        assert log_prob.shape == (6, 5)
        alone = likelihood(params[4, 2], 3).log_prob(x[2])
        torch.testing.assert_close(log_prob[4, 2], alone)
        # One more independent dimension multiplies the probabilities.
        elementwise = p.base_dist.log_prob(x)
        torch.testing.assert_close(log_prob, elementwise.sum((-3, -2, -1)))
        assert p.sample((7,)).shape == (7, 6, 5, *shape)

    def test_computes_in_float32_from_half_precision_parameters(self, likelihood):
        params = torch.randn(5, *likelihood.params_shape((4,))).bfloat16()
        x = torch.zeros(5, 4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            log_prob = likelihood(params, 1).log_prob(x)
        assert log_prob.dtype == torch.float32
        torch.testing.assert_close(log_prob, likelihood(params.float(), 1).log_prob(x), rtol=0, atol=0)

    def test_discrete_ones_sum_to_one_over_their_levels(self, likelihood):
        if not likelihood.is_discrete:
            assert likelihood.num_levels is None
            return
        params = torch.randn(5, *likelihood.params_shape((1,)), dtype=torch.float64)
        levels = _levels(likelihood.num_levels).double()
        total = likelihood(params, 1).log_prob(levels[:, None, None]).logsumexp(0)
        torch.testing.assert_close(total, torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("likelihood", [*ALL, Gaussian(scale=0.4, learn_scale=True)], ids=lambda x: type(x).__name__)
def test_score_is_the_gradient_of_the_log_likelihood(likelihood):
    torch.manual_seed(0)
    shape = (1, 2, 3)
    params = torch.randn(4, *likelihood.params_shape(shape), requires_grad=True)
    x = likelihood(params.detach(), 3).sample()
    expected = torch.autograd.grad(likelihood(params, 3).log_prob(x).sum(), params)[0]
    score = likelihood.score(params, x)
    torch.testing.assert_close(score, expected)
    torch.testing.assert_close(likelihood.score(params.detach(), x), expected)
    # Its own gradient: of a random projection, against autograd applied twice.
    direction = torch.randn_like(params)
    wanted = [params, *likelihood.parameters()]
    first = torch.autograd.grad(likelihood(params, 3).log_prob(x).sum(), params, create_graph=True)[0]
    for got, e in zip(
        torch.autograd.grad((score * direction).sum(), wanted),
        torch.autograd.grad((first * direction).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(got, e)


def test_values_at_the_edges_are_a_caution_of_the_continuous_bernoulli_alone():
    x = torch.tensor([[0.0, 0.5, 1.0, 0.25]])
    caution = ContinuousBernoulli().caution(x)
    assert caution == "50% of the values are exactly 0 or 1, where the continuous Bernoulli's density has no bound"
    assert ContinuousBernoulli().caution(x.clamp(0.1, 0.9)) is None
    assert Bernoulli().caution(x) is Gaussian().caution(x) is None
    nats = [ContinuousBernoulli()(torch.full((1, 1), -logit), 1).log_prob(torch.zeros(1, 1)) for logit in (10.0, 1e3)]
    assert nats[1] - nats[0] > 4  # and so on without end
