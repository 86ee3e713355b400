"""The mixture of discretized logistics: masses, gradients, precision, mean, draws, memory of a backward pass."""

import itertools
import math

import pytest
import torch
from scipy import stats

from vaebench.distributions import discretized_logistic_mixture as module
from vaebench.distributions.discretized_logistic_mixture import DiscretizedLogisticMixture
from vaebench.distributions.likelihoods import DiscretizedLogistic, LogisticMixture


def _levels(n, dtype=torch.float64):
    return torch.arange(n, dtype=dtype) / (n - 1)


def _mixture(channels, n, num_mixtures=3, batch=(), size=(1, 1), dtype=torch.float64, spread=1.0):
    shape = (*batch, channels, num_mixtures, *size)
    logits = torch.randn(*batch, num_mixtures, *size, dtype=dtype)
    means, v = spread * torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype) - 1.5
    coeffs = torch.randn(*batch, channels * (channels - 1) // 2, num_mixtures, *size, dtype=dtype)
    return DiscretizedLogisticMixture(logits, means, v, coeffs, n)


def _combinations(n, channels):
    """Every picture of one pixel, shape (n^C, C, 1, 1)."""
    return torch.cartesian_prod(*[_levels(n)] * channels).reshape(-1, channels, 1, 1)


class TestMass:
    @pytest.mark.parametrize("n", [2, 3, 32, 256, 1000])
    def test_is_one_for_any_location_and_scale_in_float32(self, n):
        means = torch.tensor([-5.0, -1.2, -1.0, -0.999, -0.3, 0.0, 0.11, 0.997, 1.0, 1.01, 3.0])
        scales = torch.linspace(-7, 7, 15)
        means, v = torch.cartesian_prod(means, scales).T.reshape(2, -1, 1, 1, 1, 1)
        p = DiscretizedLogisticMixture(torch.zeros(means.shape[0], 1, 1, 1), means, v, None, n)
        mass = p.log_prob(_levels(n, torch.float32).reshape(-1, 1, 1, 1, 1)).double().exp().sum(0)
        torch.testing.assert_close(mass, torch.ones_like(mass), rtol=0, atol=1e-5)

    @pytest.mark.parametrize(("channels", "n"), [(1, 256), (2, 2), (2, 40), (3, 3), (3, 12), (4, 5)])
    def test_is_one_over_all_combinations_of_channels(self, channels, n):
        torch.manual_seed(channels)
        p = _mixture(channels, n, batch=(4,))
        mass = p.log_prob(_combinations(n, channels)[:, None]).exp().sum(0)
        torch.testing.assert_close(mass, torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-10)

    def test_is_that_of_the_paper(self):
        # Equations (2) and (3) written out for one pixel, with the distribution function itself.
        torch.manual_seed(0)
        p, n = _mixture(3, 8), 8
        x = torch.tensor([2, 5, 7]) / 7
        u, h = (2 * x - 1).tolist(), 1 / (n - 1)
        logits, means, v, c = (t[..., 0, 0] for t in (p.logits, p.means, p.log_scales, p.coeffs.tanh()))
        scales = (-7 + torch.nn.functional.softplus(v + 7)).exp()
        total = 0.0
        for i in range(3):
            locations = (
                means[0, i],
                means[1, i] + c[0, i] * u[0],
                means[2, i] + c[1, i] * u[0] + c[2, i] * u[1],
            )
            mass = torch.softmax(logits, 0)[i]
            for k in range(3):
                above = 1.0 if u[k] > 0.99 else torch.sigmoid((u[k] + h - locations[k]) / scales[k, i])
                mass = mass * (above - torch.sigmoid((u[k] - h - locations[k]) / scales[k, i]))
            total = total + mass
        torch.testing.assert_close(p.log_prob(x.double().reshape(3, 1, 1)).exp(), total)

    def test_single_logistic_without_couplings_is_discretized_logistic(self):
        torch.manual_seed(0)
        params = torch.randn(5, 6, 4, 3)
        x = torch.randint(0, 256, (5, 3, 4, 3)) / 255
        location, v = params.chunk(2, 1)
        mixture = DiscretizedLogisticMixture(
            torch.zeros(5, 1, 4, 3),
            2 * location.unsqueeze(2),
            v.unsqueeze(2) - 2 + torch.tensor(2.0).log(),
            torch.zeros(5, 3, 1, 4, 3),
            256,
            min_log_scale=-7 + torch.tensor(2.0).log().item(),
        )
        single = DiscretizedLogistic()(params, 3)
        torch.testing.assert_close(mixture.log_prob(x), single.log_prob(x))
        torch.testing.assert_close(mixture.mean, single.mean)

    def test_channels_share_the_component_of_their_pixel(self):
        # Two sharp components, black and white: nothing in between, though each channel by itself is either.
        means = torch.tensor([-1.1, 1.1]).expand(3, 2).reshape(1, 3, 2, 1, 1)
        p = DiscretizedLogisticMixture(
            torch.zeros(1, 2, 1, 1), means, torch.full_like(means, -9), torch.zeros(1, 3, 2, 1, 1)
        )
        x = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]]).reshape(2, 3, 1, 1)
        assert p.log_prob(x)[0].exp().item() == pytest.approx(0.5)
        assert p.log_prob(x)[1] < -100
        drawn = p.sample((200,))
        assert set(drawn.sum(-3).flatten().tolist()) == {0.0, 3.0}

    @pytest.mark.parametrize("scale", [-7.0, -3.0, 0.0, 7.0])
    def test_float32_agrees_with_float64(self, scale):
        torch.manual_seed(0)
        n = 256
        means, coeffs = torch.randn(64, 3, 5, 4, 4), torch.randn(64, 3, 5, 4, 4)
        v, logits = torch.full_like(means, scale), torch.randn(64, 5, 4, 4)
        # pictures on the grid, from far to near
        x = torch.randint(0, n, (64, 3, 4, 4)) / (n - 1)
        near = DiscretizedLogisticMixture(logits, means, v, coeffs, n).sample()
        for value in (x, near):
            single = DiscretizedLogisticMixture(logits, means, v, coeffs, n).log_prob_of_pixels(value)
            double = DiscretizedLogisticMixture(
                logits.double(), means.double(), v.double(), coeffs.double(), n
            ).log_prob_of_pixels((value.double() * (n - 1)).round() / (n - 1))
            torch.testing.assert_close(single.double(), double, rtol=2e-6, atol=5e-4)


class TestGradient:
    def test_equals_finite_differences(self):
        torch.manual_seed(0)
        x = torch.tensor([[0.0, 1.0], [0.4, 0.0], [1.0, 0.2], [0.6, 0.8]]).double().reshape(2, 4, 1, 1)
        p = _mixture(4, 6, batch=(2,))
        inputs = [t.requires_grad_() for t in (p.logits, p.means, p.log_scales, p.coeffs)]

        def log_prob(logits, means, v, coeffs, x):
            return DiscretizedLogisticMixture(logits, means, v, coeffs, 6).log_prob(x)

        assert torch.autograd.gradcheck(log_prob, [*inputs, x])
        assert torch.autograd.gradgradcheck(log_prob, [*inputs, x])
        inner = torch.full((2, 4, 1, 1), 0.4, dtype=torch.float64, requires_grad=True)  # away from the steps
        assert torch.autograd.gradcheck(log_prob, [*inputs, inner])

    def test_of_parameters_that_serve_several_pictures(self):
        torch.manual_seed(0)
        p, x = _mixture(3, 4, batch=(1,)), _combinations(4, 3)
        means = p.means.requires_grad_()
        (shared,) = torch.autograd.grad(p.log_prob(x).sum(), means)
        one_by_one = sum(torch.autograd.grad(p.log_prob(row[None]).sum(), means)[0] for row in x)
        torch.testing.assert_close(shared, one_by_one)

    @pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("mean", [-8.0, 8.0])
    def test_never_vanishes_in_the_tails(self, value, mean):
        means = torch.full((1, 1, 1, 1, 1), mean, requires_grad=True)
        v = torch.full((1, 1, 1, 1, 1), -6.0, requires_grad=True)
        p = DiscretizedLogisticMixture(torch.zeros(1, 1, 1, 1), means, v, None)
        p.log_prob(torch.full((1, 1, 1, 1), value)).backward()
        is_sure = (value, mean) in ((0.0, -8.0), (1.0, 8.0))  # the whole mass is there already
        for gradient in (means.grad, v.grad):
            assert gradient.isfinite().all()
            assert is_sure or gradient.abs().item() > 100


class TestMean:
    @pytest.mark.parametrize(("channels", "n"), [(1, 256), (2, 9), (3, 5), (4, 3)])
    def test_is_the_sum_of_value_times_mass(self, channels, n):
        torch.manual_seed(channels)
        p, x = _mixture(channels, n, batch=(5,)), _combinations(n, channels)
        mass = p.log_prob(x[:, None]).exp()
        expected = (mass[..., None, None, None] * x[:, None]).sum(0)
        torch.testing.assert_close(p.mean, expected, rtol=0, atol=1e-7)

    @pytest.mark.parametrize("channels", [2, 3])
    def test_with_many_levels_is_within_a_fifth_of_a_level(self, channels):
        torch.manual_seed(0)
        n = 40  # more than are summed up
        p, x = _mixture(channels, n, num_mixtures=2, batch=(6,)), _combinations(n, channels)
        mass = p.log_prob(x[:, None]).exp()
        expected = (mass[..., None, None, None] * x[:, None]).sum(0)
        torch.testing.assert_close(p.mean, expected, rtol=0, atol=0.2 / (n - 1))

    @pytest.mark.parametrize("channels", [1, 3])
    def test_is_the_same_where_components_are_clear_of_the_ends(self, channels, monkeypatch):
        """Or have no weight: a shortcut that saves most of the work here."""
        torch.manual_seed(channels)
        p = _mixture(channels, 256, batch=(40,), spread=0.3)
        p = DiscretizedLogisticMixture(4 * p.logits, p.means, p.log_scales - 3, p.coeffs)
        exact, work = module._means_of_piece, []
        monkeypatch.setattr(module, "_means_of_piece", lambda m, *rest: work.append(len(m[0])) or exact(m, *rest))
        short = p.mean
        saved = 1 - sum(work) / p.logits.numel()
        monkeypatch.setattr(module, "_REACH", (math.inf, math.inf))
        monkeypatch.setattr(module, "_LEAST_WEIGHT", 0)
        torch.testing.assert_close(short, p.mean, rtol=0, atol=1e-7 if channels == 1 else 2e-5)
        assert saved > 0.5

    @pytest.mark.parametrize(("channels", "n"), [(1, 256), (2, 256), (3, 256), (4, 3)])
    def test_equals_that_of_a_million_draws(self, channels, n):
        torch.manual_seed(10 * channels)
        p = _mixture(channels, n, dtype=torch.float32, spread=0.6)
        x = torch.cat([p.sample((250_000,)) for _ in range(4)]).double()
        error = (x.mean(0) - p.mean).abs()
        assert (error < 4.5 * x.std(0) / 1000).all()

    def test_has_gradients(self):
        torch.manual_seed(0)
        p = _mixture(3, 256)
        means = p.means.requires_grad_()
        with_graph = p.mean
        (gradient,) = torch.autograd.grad(with_graph[2].sum(), means)
        step = torch.zeros_like(means)
        step[0, 1] = 1e-5
        up, down = (
            DiscretizedLogisticMixture(p.logits, means.detach() + sign * step, p.log_scales, p.coeffs).mean[2].sum()
            for sign in (1, -1)
        )
        assert gradient[0, 1].item() == pytest.approx((up - down).item() / 2e-5, rel=1e-4)
        assert gradient[0, 1].abs() > 1e-3


class TestDraws:
    def test_follow_the_mass(self):
        torch.manual_seed(0)
        n = 4
        p, x = _mixture(3, n, dtype=torch.float32), _combinations(n, 3)
        expected = p.log_prob(x.float()).double().exp()
        index = ((p.sample((40_000,)) * (n - 1)).round().long().flatten(1) @ torch.tensor([n * n, n, 1])).bincount(
            minlength=n**3
        )
        is_frequent = expected * 40_000 >= 5
        observed = torch.cat([index[is_frequent], index[~is_frequent].sum()[None]]).double()
        wanted = torch.cat([expected[is_frequent], expected[~is_frequent].sum()[None]]) * 40_000
        assert stats.chisquare(observed.numpy(), (wanted / wanted.sum() * 40_000).numpy()).pvalue > 1e-4

    def test_condition_on_channels_within_the_range(self):
        # Red far above the range and its coefficient near 1: green follows the clamped red, at 1, not at 3.
        means = torch.tensor([3.0, -1.0]).reshape(1, 2, 1, 1, 1)
        p = DiscretizedLogisticMixture(
            torch.zeros(1, 1, 1, 1), means, torch.full_like(means, -7), torch.full((1, 1, 1, 1, 1), 20.0)
        )
        x = p.sample((100,))
        assert (x[..., 0, 0, 0] == 1).all()
        assert (x[..., 1, 0, 0] - 0.5).abs().max() < 0.02
        assert (p.log_prob(x) > -8).all()

    def test_of_temperature_near_zero_are_the_likeliest_component(self):
        torch.manual_seed(0)
        p = _mixture(1, 256, size=(2, 2))
        x = p.sample((50,), temperature=1e-4)
        best = p.logits.argmax(0, keepdim=True)
        expected = ((p.means[0].gather(0, best).clamp(-1, 1) + 1) / 2).expand_as(x)
        torch.testing.assert_close(x, expected, rtol=0, atol=0.01)


class TestLikelihood:
    @pytest.mark.parametrize(("shape", "channels"), [((1, 4, 5), 30), ((2, 4, 5), 60), ((3, 4, 5), 100)])
    def test_asks_for_as_many_channels_as_the_paper(self, shape, channels):
        assert LogisticMixture().params_shape(shape) == (channels, 4, 5)
        assert LogisticMixture(num_mixtures=2).params_shape((7, *shape)) == (7, channels // 5, 4, 5)

    def test_sums_over_pictures_and_videos(self):
        likelihood = LogisticMixture(17, num_mixtures=2)
        for shape in ((3, 4, 5), (2, 3, 4, 5)):
            params = torch.randn(6, 5, *likelihood.params_shape(shape))
            x = torch.randint(0, 17, (5, *shape)) / 16
            p = likelihood(params, len(shape))
            assert p.event_shape == shape
            assert p.log_prob(x).shape == (6, 5)
            torch.testing.assert_close(p.log_prob(x)[4, 2], likelihood(params[4, 2], len(shape)).log_prob(x[2]))
            assert p.sample((7,)).shape == (7, 6, 5, *shape)
            assert p.mean.shape == (6, 5, *shape)

    def test_splits_the_channels_by_name(self):
        likelihood = LogisticMixture(num_mixtures=2)
        params = torch.arange(20.0).reshape(1, 20, 1, 1)
        logits, means, log_scales, coeffs = likelihood.split(params)
        assert logits.flatten().tolist() == [0, 1]
        assert means.flatten().tolist() == [2, 3, 4, 5, 6, 7]
        assert coeffs.flatten().tolist() == [14, 15, 16, 17, 18, 19]
        assert log_scales.shape == means.shape == coeffs.shape == (1, 3, 2, 1, 1)

    def test_computes_in_float32_from_half_precision_parameters(self):
        likelihood = LogisticMixture()
        params, x = torch.randn(2, 100, 2, 2).bfloat16(), torch.zeros(2, 3, 2, 2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            log_prob = likelihood(params, 3).log_prob(x)
        assert log_prob.dtype == torch.float32
        torch.testing.assert_close(log_prob, likelihood(params.float(), 3).log_prob(x), rtol=0, atol=0)

    def test_score_is_the_gradient(self):
        likelihood, x = LogisticMixture(), torch.rand(2, 3, 2, 2)
        params = torch.randn(2, 100, 2, 2, requires_grad=True)
        (expected,) = torch.autograd.grad(likelihood(params, 3).log_prob(x).sum(), params)
        torch.testing.assert_close(likelihood.score(params, x), expected)

    @pytest.mark.parametrize(
        ("mistake", "sentence"),
        [
            (lambda: LogisticMixture(num_mixtures=0), "num_mixtures must be a whole number of at least 1; got 0"),
            (lambda: LogisticMixture(num_levels=1), "num_levels must be a whole number of at least 2; got 1"),
            (lambda: LogisticMixture().params_shape((5, 8, 8)), r"1 to 4 channels of pictures \(C, H, W\), got .*\(5,"),
            (lambda: LogisticMixture().params_shape((12,)), r"got examples of shape \(12,\); use likelihood=discret"),
            (
                lambda: DiscretizedLogisticMixture(
                    torch.zeros(1, 2, 1, 1), *[torch.zeros(1, 3, 2, 1, 1)] * 2, torch.zeros(1, 2, 2, 1, 1)
                ),
                r"coefficients .* of shape \(1, 3, 2, 1, 1\); got .* and \(1, 2, 2, 1, 1\)",
            ),
        ],
    )
    def test_refuses(self, mistake, sentence):
        with pytest.raises(ValueError, match=sentence):
            mistake()


def _peak_bytes(work):
    """The most bytes of tensors alive at one time that `work` allocated, by the profiler's record."""
    with torch.profiler.profile(profile_memory=True) as profile:
        work()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = itertools.accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))
    return max(alive)


def test_memory_of_a_backward_pass_stays_below_twelve_tensors():
    # Tensors (B, 3, 10, 64, 64); the decoder's output, a third of ten, and its gradient are counted.
    likelihood, batch = LogisticMixture(), 2
    x = torch.randint(0, 256, (batch, 3, 64, 64)) / 255

    def work():
        params = torch.zeros(batch, 100, 64, 64, requires_grad=True)
        likelihood(params, 3).log_prob(x).sum().backward()

    work()
    tensor = batch * 3 * 10 * 64 * 64 * 4
    peak = _peak_bytes(work)
    assert 6 * tensor < peak < 12 * tensor  # two thirds of ten for output and gradient alone
