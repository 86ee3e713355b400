"""The diffusion likelihood on a Gaussian, whose best denoiser is known in closed form."""

import math
from types import SimpleNamespace

import pytest
import torch
from scipy import stats
from torch import nn
from torch.distributions import Normal, kl_divergence

from vaebench.core import Batch
from vaebench.distributions.denoising_diffusion import (
    DenoisingDiffusion,
    DiffusionDistribution,
    _drawn,
    _log_mass,
    _times_of_draw,
)
from vaebench.distributions.likelihoods import Bernoulli
from vaebench.metrics.ais import AIS
from vaebench.metrics.bounds import why_no_weights
from vaebench.models import VAE, DiffusionVAE
from vaebench.objectives.diffusion import alpha_bars, noise_weights

MEAN, SD, D = 0.3, 0.5, 2


class Exact(nn.Module):
    """v of which E[epsilon | x_t] comes, for x_0 ~ N(MEAN, SD^2)."""

    def __init__(self, alpha_bar):
        super().__init__()
        self.alpha_bar = alpha_bar

    def forward(self, x_t, t, context=None):
        a = self.alpha_bar[t].view(-1, *[1] * (x_t.ndim - 1))
        epsilon = (1 - a).sqrt() * (x_t - a.sqrt() * MEAN) / (a * SD**2 + 1 - a)
        return (epsilon - (1 - a).sqrt() * x_t) / a.sqrt()


def exact_head(num_timesteps=100, **settings):
    head = DenoisingDiffusion(None, num_timesteps=num_timesteps, num_steps=num_timesteps, context_dim=1, **settings)
    head.setup((D,))
    head.denoiser = Exact(head.alpha_bar)
    return head.double()


def contexts(n):
    return torch.zeros(n, 1, dtype=torch.float64)


def test_the_weights_are_those_of_the_divergence_between_two_gaussians():
    """At some t, an independent evaluation: q(x_{t-1}|x_t, x_0) and p(x_{t-1}|x_t) as Gaussians (eq. 6 and 11)."""
    alpha_bar = alpha_bars("linear", 50)
    x_0, epsilon, predicted = torch.randn(3, 4, dtype=torch.float64).unbind()
    for t in (2, 17, 50):
        now, then = alpha_bar[t], alpha_bar[t - 1]
        alpha, beta = now / then, 1 - now / then
        x_t = now.sqrt() * x_0 + (1 - now).sqrt() * epsilon
        mean = then.sqrt() * beta / (1 - now) * x_0 + alpha.sqrt() * (1 - then) / (1 - now) * x_t
        mean_p = (x_t - beta / (1 - now).sqrt() * predicted) / alpha.sqrt()
        sigma = ((1 - then) / (1 - now) * beta).sqrt()
        divergence = kl_divergence(Normal(mean, sigma), Normal(mean_p, sigma)).sum()
        ours = noise_weights(alpha_bar)[t - 2] * (epsilon - predicted).square().sum()
        torch.testing.assert_close(ours, divergence, rtol=1e-9, atol=0)


@pytest.mark.parametrize("num_timesteps", [4, 100])  # with few, each time's weight tells
@torch.no_grad()
def test_the_bound_has_the_mean_that_the_best_denoiser_gives_it(num_timesteps):
    """Each term's mean over the data is known: Var(epsilon | x_t) = a s^2 / (a s^2 + 1 - a)."""
    torch.manual_seed(0)
    head, n = exact_head(num_timesteps), 40_000
    a = head.alpha_bar
    error = a * SD**2 / (a * SD**2 + 1 - a)  # of the predicted noise, one dimension
    terms = (noise_weights(a) * error[2:]).sum()
    prior = 0.5 * (a[-1] * (MEAN**2 + SD**2) + (1 - a[-1]) - (1 - a[-1]).log() - 1)
    last = -0.5 * math.log(2 * math.pi) - 0.5 * (1 - a[1]).log() - 0.5 * error[1] / a[1]
    expected = D * float(last - terms - prior)
    x = MEAN + SD * torch.randn(n, D, dtype=torch.float64)
    for training in (True, False):
        head.train(training)
        found = head(contexts(n), 1).log_prob(x)
        assert float(found.mean()) == pytest.approx(expected, abs=4.5 * float(found.std()) / math.sqrt(n))
    exact = -D * 0.5 * math.log(2 * math.pi * math.e * SD**2)
    assert expected < exact


@pytest.mark.parametrize("eta", [1.0, 0.0])
@torch.no_grad()
def test_draws_have_the_moments_of_the_data(eta):
    torch.manual_seed(0)
    head, n = exact_head(400, eta=eta), 4_000
    x = head(contexts(1), 1).sample((n,)).flatten()
    assert float(x.mean()) == pytest.approx(MEAN, abs=4.5 * SD / math.sqrt(2 * n) + 0.005)  # and 400 steps, not all
    assert float(x.std()) == pytest.approx(SD, abs=4.5 * SD / math.sqrt(4 * n) + 0.01)


@torch.no_grad()
def test_twenty_steps_keep_nine_tenths_of_the_spread():
    """A measured claim, at the defaults: 0.93; times at equal distances keep 0.87, with the ancestral noise 0.78."""
    torch.manual_seed(0)
    head = exact_head(1000)
    head.num_steps = DenoisingDiffusion(2).num_steps
    spread = float(head(contexts(1), 1).sample((5_000,)).std()) / SD
    assert 0.90 < spread < 1  # 10,000 numbers give it to within 0.007


def test_few_times_are_denser_near_zero_and_none_is_left_out_of_all():
    assert _times_of_draw(1000, 4) == [1000, 562, 250, 62, 0]
    for num_steps in (1, 7, 500, 999, 1000):
        times = _times_of_draw(1000, num_steps)
        assert (times[0], times[-1], len(set(times))) == (1000, 0, num_steps + 1)


def test_the_mass_of_bins_is_exact_in_both_tails():
    lower = torch.tensor([-math.inf, -12.0, -3.0, 0.2, 4.0, 11.0], dtype=torch.float64)
    upper = torch.tensor([-8.0, -11.9, 5.0, 0.3, 4.5, math.inf], dtype=torch.float64)
    expected = []
    for a, b in zip(lower.tolist(), upper.tolist(), strict=True):
        a, b = (a, b) if a < 0 else (-b, -a)  # the same mass, where no difference of numbers near 1 is taken
        expected.append(stats.norm.logcdf(b) + math.log1p(-math.exp(stats.norm.logcdf(a) - stats.norm.logcdf(b))))
    torch.testing.assert_close(_log_mass(lower, upper), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)


@pytest.mark.parametrize("x_0", [0.3, 1.1, -1.1])  # beyond the ends, where the outermost bins take the tails
@pytest.mark.parametrize("shape", [(1,), (1, 1, 1)])
@torch.no_grad()
def test_the_last_step_is_a_distribution_over_the_levels(shape, x_0):
    """With the same noise for every level, the masses of all levels sum to 1."""
    head = DenoisingDiffusion(5, num_timesteps=10, num_steps=10, hidden_dim=8)
    head.setup(shape)
    head = head.double()
    p = head(torch.zeros(5, *head.params_shape(shape), dtype=torch.float64), len(shape)).base_dist

    class Fixed(nn.Module):  # predicts, whatever x_1, the noise that makes x_0 of it
        def forward(self, x, t, context=None):
            a = head.alpha_bar[1]
            epsilon = (x - a.sqrt() * x_0) / (1 - a).sqrt()
            return (epsilon - (1 - a).sqrt() * x) / a.sqrt()

    head.denoiser = Fixed()
    x = torch.linspace(-1, 1, 5, dtype=torch.float64).view(5, *shape)
    total = p._last_step(x, p.context, p.batch_shape).exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-12)


def test_every_time_is_drawn_as_often_as_it_weighs():
    """Evenly for simple weights; the bound's own weights otherwise, which differ by a factor of 4 and more."""
    p, n = exact_head(4).given(contexts(1)), 3000
    weights = torch.tensor([1.0, 4.0, 0.5, 2.0], dtype=torch.float64)
    for times, share in (
        (p._times(torch.Size((n,))) - 1, torch.full((4,), 0.25)),
        (_drawn(weights, torch.rand(n)), weights / 7.5),
    ):
        counts = torch.bincount(times, minlength=4)
        assert ((counts / n - share).abs() < 4.5 * (share * (1 - share) / n).sqrt()).all()


@torch.no_grad()
def test_times_by_weight_make_the_bound_less_noisy():
    """The estimate's variance over times, at the best denoiser; even times have 3 times the spread or more."""
    head, n = exact_head(1000), 20_000
    torch.manual_seed(0)
    x = MEAN + SD * torch.randn(n, D, dtype=torch.float64)
    p = head.eval()(contexts(n), 1).base_dist
    context = p.rows(x)[1]
    by_weight = p._sum_of_terms(x, context, torch.Size((n,)))
    t = 2 + torch.randint(0, 999, (n,))
    evenly = -999 * head.weights[t - 2] * p._squared_error(x, context, t, torch.Size((n,)))[0]
    assert float(evenly.std()) > 3 * float(by_weight.std())
    error = 4.5 * float(evenly.std()) / math.sqrt(n)
    assert float(by_weight.mean()) == pytest.approx(float(evenly.mean()), abs=error)


def test_fewer_levels_begin_with_more_noise():
    """A quarter of the distance between levels, where that is more than the schedule's own first noise of 0.01."""
    for num_levels, first in ((256, 0.01), (17, 0.5 / 16), (2, 0.5)):
        alpha_bar = DenoisingDiffusion(num_levels).alpha_bar
        assert float((1 - alpha_bar[1]).sqrt()) == pytest.approx(first, rel=1e-9)
        assert float(alpha_bar[-1]) == pytest.approx(float(alpha_bars("linear", 1000)[-1]), rel=1e-9)
        assert (alpha_bar.diff() < 0).all()
        assert len(alpha_bar) == 1001


@torch.no_grad()
def test_pictures_have_noise_of_their_own_whatever_the_batch():
    model = DiffusionVAE((1, 3, 4), likelihood=DenoisingDiffusion(9, hidden_dim=8, num_steps=4, eta=1.0), latent_dim=2)
    z = torch.randn(5, 2)
    torch.manual_seed(1)
    together = model.picture(z)
    torch.manual_seed(1)
    torch.testing.assert_close(torch.cat([model.picture(z[:2]), model.picture(z[2:])]), together)
    alike = model.picture(z[:1].expand(8, -1))
    assert len(alike.unique(dim=0)) == 8
    x = torch.randint(0, 9, (5, 1, 3, 4)) / 8
    reconstructed = model.reconstruct(x, deterministic=True)
    torch.testing.assert_close(model.reconstruct(x[3:], deterministic=True), reconstructed[3:])
    model.encode = lambda x, y=None: Normal(x.new_zeros(len(x), 2), 1.0)
    assert len(model.reconstruct(x, deterministic=True).unique(dim=0)) == 5
    assert len(model.reconstruct(x[:1].expand(5, -1, -1, -1)).unique(dim=0)) == 5
    at_zero = model.reconstruct(x, deterministic=True)
    model.encode = lambda x, y=None: Normal(x.new_full((len(x), 2), 50.0), 1.0)  # the same noise at another mean of q
    assert (model.reconstruct(x, deterministic=True) != at_zero).flatten(1).any(1).all()
    assert len(model.decode(z[:1].expand(8, -1)).unique(dim=0)) == 1  # on a path only z moves


def test_the_decoders_picture_is_trained_as_a_vae_is():
    """The first stage: log N(x; x_hat, sigma^2), weighted; without it the loss is the bound."""
    head, x = DenoisingDiffusion(9, hidden_dim=8), torch.randint(0, 9, (6, 1, 3, 4)) / 8
    model = DiffusionVAE((1, 3, 4), likelihood=head, latent_dim=2, reconstruction_weight=0.7)
    params = torch.randn(6, 17, 3, 4)
    model.likelihood = lambda z, y=None: head(params, 3)
    loss = model.loss(Batch(x), 0)
    expected = -Normal((params[:, :1] + 1) / 2, 0.25).log_prob(x).sum() / 6
    torch.testing.assert_close(loss.terms["reconstruction"], expected)
    torch.testing.assert_close(loss.total, loss.terms["distortion"] + loss.terms["rate"] + 0.7 * expected)
    assert set(
        DiffusionVAE((3,), likelihood=DenoisingDiffusion(4), reconstruction_weight=0)
        .loss(Batch(torch.rand(2, 3)), 0)
        .terms
    ) == {"distortion", "rate"}


def test_levels_are_carried_to_minus_one_and_one(monkeypatch):
    seen, rate = [], DiffusionDistribution._prior_rate
    monkeypatch.setattr(DiffusionDistribution, "_prior_rate", lambda self, x: seen.append(x) or rate(self, x))
    head = DenoisingDiffusion(3, hidden_dim=8)
    head.setup((3,))
    head(torch.zeros(1, 19), 1).log_prob(torch.tensor([[0.0, 0.5, 1.0]]))
    assert seen[0].tolist() == [[-1.0, 0.0, 1.0]]


def test_simple_weights_give_the_squared_error_and_no_rate():
    model = DiffusionVAE((3,), likelihood=DenoisingDiffusion(4, "simple", hidden_dim=8), latent_dim=2)
    assert "rate" not in model.capabilities
    x = torch.randint(0, 4, (50, 3)) / 3
    loss = model.loss(Batch(x), 0)
    assert 0 < float(loss.terms["distortion"]) < 10 * 3  # three standard normals, and a network near zero
    with pytest.raises(ValueError, match=r"no rate: with likelihood.weighting=simple its loss does not bound"):
        model.require("rate")
    assert "rate" in DiffusionVAE((3,), likelihood=DenoisingDiffusion(4, hidden_dim=8)).capabilities


def test_weights_and_chains_refuse_a_bound():
    model = DiffusionVAE((3,), likelihood=DenoisingDiffusion(4, hidden_dim=8), latent_dim=2)
    assert "estimated by a bound, whose exponential is not an importance weight" in why_no_weights(model)
    assert why_no_weights(VAE((3,), likelihood="bernoulli")) is None
    subject = SimpleNamespace(model=model, reason_against=model.reason_against)
    assert "estimated anew in each call" in AIS().why_not(subject)


@pytest.mark.parametrize("shape", [(3,), (2, 5, 4)])
def test_every_parameter_learns_and_shapes_are_kept(shape):
    head = DenoisingDiffusion(8, num_timesteps=20, num_steps=5, hidden_dim=8)
    model = DiffusionVAE(shape, likelihood=head, latent_dim=2)
    x = torch.randint(0, 8, (6, *shape)) / 7
    model.loss(Batch(x), 0).total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    p = model.likelihood(torch.randn(3, 6, 2))
    assert p.log_prob(x).shape == (3, 6)
    assert p.mean.shape == (3, 6, *shape)
    draws = p.sample((2,))
    assert draws.shape == (2, 3, 6, *shape)
    assert torch.equal((draws * 7).round() / 7, draws)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "got auto"),
        ({"num_levels": 4, "weighting": "simpel"}, "did you mean 'simple'"),
        ({"num_levels": 4, "noise_schedule": "cosin"}, "did you mean 'cosine'"),
        ({"num_levels": 4, "num_steps": 2000}, "num_steps must be a whole number of at least 1 and at most 1000"),
        ({"num_levels": 4, "eta": 2}, "eta must be at least 0 and at most 1; got 2"),
    ],
)
def test_mistakes_are_told(settings, message):
    with pytest.raises(ValueError, match=message):
        DenoisingDiffusion(**settings)
    with pytest.raises(ValueError, match="needs likelihood=denoising_diffusion, got Bernoulli"):
        DiffusionVAE((3,), likelihood=Bernoulli())
