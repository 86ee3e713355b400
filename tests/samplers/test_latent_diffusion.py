"""Diffusion on latents against closed forms: the published schedule, the noise, and each step down."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from tests.samplers.test_samplers import LinearModel
from vaebench.core import Batch, Draws
from vaebench.networks.denoiser import Denoiser
from vaebench.samplers.latent_diffusion import LatentDiffusion, LatentDiffusionSampler, NoiseFromVelocity, alpha_bars


def published(num_timesteps: int = 1000) -> list[float]:
    """alpha-bar at t = 0, 1, … of Ho et al. (2020), section 4: beta_1 = 1e-4 rises linearly to beta_T = 0.02."""
    found = [1.0]
    for t in range(num_timesteps):
        found.append(found[-1] * (1 - (1e-4 + (0.02 - 1e-4) * t / (num_timesteps - 1))))
    return found


class Exact(nn.Module):
    """The best denoiser for latents N(mean, covariance), which is linear; it notes what it was asked."""

    def __init__(self, mean: torch.Tensor, covariance: torch.Tensor) -> None:
        super().__init__()
        self.mean, self.covariance, self.seen = mean, covariance, []

    def forward(self, x, t, context=None):
        self.seen.append((x, t))
        a = torch.tensor(published(), dtype=x.dtype)[t]
        eye = torch.eye(x.shape[1], dtype=x.dtype)
        marginal = a[:, None, None] * self.covariance + (1 - a)[:, None, None] * eye
        deviation = x - a.sqrt()[:, None] * self.mean
        return (1 - a).sqrt()[:, None] * torch.linalg.solve(marginal, deviation.unsqueeze(-1)).squeeze(-1)


class Silent(nn.Module):
    def forward(self, x, t, context=None):
        return torch.zeros_like(x)


def diffusion(mean, covariance) -> LatentDiffusion:
    return LatentDiffusion(len(mean), Exact(mean, covariance), alpha_bars("linear", 1000)).double()


def test_the_linear_schedule_is_the_published_one():
    torch.testing.assert_close(alpha_bars("linear", 1000), torch.tensor(published(), dtype=torch.float64))
    assert alpha_bars("linear", 1000)[-1] == pytest.approx(4.04e-5, rel=0.01)
    for num in (50, 100):  # as noisy at the end
        assert 0 < float(alpha_bars("linear", num)[-1]) < 1e-4


def test_the_cosine_schedule_is_the_published_one():
    """alpha-bar_t = f(t) / f(0), except where beta is bounded by 0.999 at the very end."""

    def f(t: int) -> float:
        return math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    found = alpha_bars("cosine", 1000)
    for t in (0, 1, 500, 998):
        assert float(found[t]) == pytest.approx(f(t) / f(0), rel=1e-9)


def test_training_adds_the_noise_of_the_schedule():
    """x_t given x_0 is N(sqrt(abar_t) x_0, 1 - abar_t), t uniform over 1, …, T."""
    torch.manual_seed(0)
    model = diffusion(torch.zeros(1).double(), torch.eye(1).double())
    num = 200_000
    model.loss(Batch(torch.full((num, 1), 3.0, dtype=torch.float64)), 0)
    ((x, t),) = model.denoiser.seen
    assert (int(t.min()), int(t.max())) == (1, 1000)
    assert abs(float(t.double().mean()) - 500.5) < 4.5 * 1000 / math.sqrt(12 * num)
    a = torch.tensor(published(), dtype=torch.float64)[t]
    residual = (x[:, 0] - 3 * a.sqrt()) / (1 - a).sqrt()
    assert abs(float(residual.mean())) < 4.5 / math.sqrt(num)
    assert abs(float(residual.square().mean()) - 1) < 4.5 * math.sqrt(2 / num)


def test_the_loss_is_the_squared_error_of_the_noise():
    """Nothing is left where the noise is all that there is; a predictor of zeros has D nats."""
    model = diffusion(torch.zeros(2).double(), torch.zeros(2, 2).double())
    batch = Batch(torch.zeros(1000, 2).double())
    assert float(model.loss(batch, 0).total) == pytest.approx(0, abs=1e-15)
    model.denoiser = Silent()
    assert float(model.loss(batch, 0).total) == pytest.approx(2, abs=0.4)
    assert float(model.validation_loss(batch, 0).total) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("times", [[1000, 700, 333, 1, 0], [5, 4, 3, 2, 1, 0]])
def test_deterministic_steps_keep_the_noise_and_end_at_the_datum(times):
    """Of one known datum every x_t = sqrt(abar_t) m + sqrt(1 - abar_t) e, with the same e all the way down."""
    m = torch.tensor([2.0, -1.0]).double()
    model, a, e = diffusion(m, torch.zeros(2, 2).double()), published(), torch.randn(4, 2).double()
    x = math.sqrt(a[times[0]]) * m + math.sqrt(1 - a[times[0]]) * e
    for t, s in itertools.pairwise(times):
        x, sigma = model.step(x, t, s, eta=0.0)
        assert sigma == 0
        torch.testing.assert_close(x, math.sqrt(a[s]) * m + math.sqrt(1 - a[s]) * e, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(x, m.expand(4, 2), rtol=1e-6, atol=1e-8)


def test_an_ancestral_step_is_the_posterior_of_ho_et_al():
    """Mean and variance of q(x_{t-1} | x_t, x_0), equations 6 and 7."""
    m, a, t = torch.tensor([2.0, -1.0]).double(), published(), 321
    beta = 1 - a[t] / a[t - 1]
    x = torch.randn(5, 2).double()
    mean, sigma = diffusion(m, torch.zeros(2, 2).double()).step(x, t, t - 1, eta=1.0)
    expected = math.sqrt(a[t - 1]) * beta / (1 - a[t]) * m + math.sqrt(1 - beta) * (1 - a[t - 1]) / (1 - a[t]) * x
    torch.testing.assert_close(mean, expected)
    assert sigma**2 == pytest.approx((1 - a[t - 1]) / (1 - a[t]) * beta)


@pytest.mark.parametrize(("eta", "num_steps"), [(1.0, 1000), (0.5, 1000), (0.0, 1000), (0.0, 200)])
def test_the_way_down_has_the_moments_of_the_data(eta, num_steps):
    """With the best denoiser every step is linear, so moments are carried down without drawing."""
    m, covariance = torch.tensor([0.7, -0.2]).double(), torch.tensor([[1.0, 0.6], [0.6, 0.5]]).double()
    model = diffusion(m, covariance)
    times = torch.linspace(0, 1000, num_steps + 1).round().long().flip(0).tolist()
    mean, spread = torch.zeros(2).double(), torch.eye(2).double()
    for t, s in itertools.pairwise(times):
        ahead, sigma = model.step(torch.stack([mean, *(mean + torch.eye(2).double())]), t, s, eta)
        linear = (ahead[1:] - ahead[0]).T
        mean, spread = ahead[0], linear @ spread @ linear.T + sigma**2 * torch.eye(2).double()
    torch.testing.assert_close(mean, m, atol=0.02, rtol=0)
    torch.testing.assert_close(spread, covariance, atol=0.02, rtol=0)


def fitted(**settings) -> LatentDiffusionSampler:
    torch.manual_seed(0)
    small = {"hidden_dim": 16, "num_blocks": 1, "num_timesteps": 20, "num_epochs": 2}
    return LatentDiffusionSampler(**{**small, **settings}).setup(LinearModel()).fit(Draws(3 + 2 * torch.randn(60, 2)))


def test_temperature_scales_all_noise():
    sampler = fitted(temperature=0.0)
    z = sampler.sample(5).z
    torch.testing.assert_close(z, z[:1].expand(5, 2))
    sampler.temperature = 1.0
    assert sampler.sample(50).z.std(0).min() > 0.5


def test_latents_are_standardised_and_drawn_in_their_own_scale():
    sampler = fitted()
    assert (sampler.density.mean - 3).abs().max() < 1
    assert (sampler.density.scale - 2).abs().max() < 0.7
    assert sampler.sample(300).z.mean() > 1.5


def test_fewer_steps_ask_the_denoiser_less_often():
    sampler, asked, told = fitted(num_steps=4), [], []
    right = sampler.density.step
    sampler.density.step = lambda x, t, s, *rest: asked.append((t, s)) or right(x, t, s, *rest)
    sampler.sample(3, progress=lambda done, total: told.append((done, total)))
    assert asked == [(20, 15), (15, 10), (10, 5), (5, 0)]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_noise_and_velocity_are_those_of_salimans_and_ho():
    """v = sqrt(abar) e - sqrt(1 - abar) x_0 gives back the noise e."""
    x_0, e, t = torch.randn(4, 3).double(), torch.randn(4, 3).double(), torch.tensor([1, 20, 500, 1000])
    a = alpha_bars("linear", 1000)[t, None]
    net = NoiseFromVelocity(Denoiser(3, 4, 1), alpha_bars("linear", 1000))
    net.network.forward = lambda x, t, context: a.sqrt() * e - (1 - a).sqrt() * x_0
    torch.testing.assert_close(net(a.sqrt() * x_0 + (1 - a).sqrt() * e, t), e)


def test_latents_of_more_dimensions_than_a_block_has_units_keep_their_scale():
    """Those of a hierarchy have thousands; a network of a few units cannot return noise of full rank."""
    torch.manual_seed(0)

    class Wide(LinearModel):
        latent_shape = (300,)

    z = 5 + 2 * torch.randn(60, 300)
    for num_epochs in (1, 5):
        sampler = LatentDiffusionSampler(hidden_dim=16, num_blocks=1, num_timesteps=50, num_epochs=num_epochs)
        drawn = sampler.setup(Wide()).fit(Draws(z)).sample(100).z
        assert float(drawn.mean()) == pytest.approx(5, abs=0.1)
        assert float((drawn - z.mean(0)).std()) == pytest.approx(2, rel=0.1)


def test_the_denoiser_knows_time_and_context():
    torch.manual_seed(0)
    net, x, t = Denoiser(2, 16, 2, context_dim=3), torch.randn(4, 2), torch.arange(4)
    context = torch.eye(3)[torch.tensor([0, 1, 2, 0])]
    out = net(x, t, context)
    assert out.shape == (4, 2)
    assert not torch.allclose(out, net(x, t + 5, context))
    assert not torch.allclose(out, net(x, t, context.flip(0)))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"noise_schedule": "linaer"}, "noise_schedule must be one of linear, cosine; got 'linaer'.*linear"),
        ({"num_steps": 1001}, "num_steps must be"),
        ({"num_steps": 0}, "num_steps must be"),
        ({"eta": 1.5}, "eta must be"),
        ({"num_timesteps": 1}, "num_timesteps must be"),
        ({"hidden_dim": 1}, "hidden_dim must be"),
        ({"num_blocks": 0}, "num_blocks must be"),
        ({"temperature": -1.0}, "temperature must be"),
    ],
)
def test_settings_out_of_range_are_named(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        LatentDiffusionSampler(**settings)


def test_an_untrained_network_gives_the_noise_of_normal_latents():
    shares = alpha_bars("cosine", 10)
    noise = NoiseFromVelocity(Denoiser(3, 4, 1), shares)
    x, t = torch.randn(11, 3), torch.arange(11)
    torch.testing.assert_close(noise(x, t), x * (1 - shares.to(x.dtype)).sqrt()[:, None])
