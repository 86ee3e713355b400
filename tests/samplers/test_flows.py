"""Flows on latents whose distribution is known."""

from __future__ import annotations

import math

import pytest
import torch

from tests.samplers.test_samplers import LinearModel
from vaebench.core import Draws
from vaebench.samplers.iaf import IAFSampler
from vaebench.samplers.maf import MAFSampler

QUICK = {"num_transforms": 2, "hidden_features": (32,), "num_epochs": 25, "patience": 5, "learning_rate": 5e-3}


def banana(n: int) -> torch.Tensor:
    x = torch.randn(n, 2)
    return torch.stack([3 + 2 * x[:, 0], x[:, 0].square() + 0.5 * x[:, 1] - 1], -1)


def log_density(z: torch.Tensor) -> torch.Tensor:
    a = (z[:, 0] - 3) / 2
    b = (z[:, 1] - a.square() + 1) / 0.5
    return -0.5 * (a.square() + b.square()) - math.log(2 * math.pi) - math.log(2 * 0.5)


@pytest.fixture(scope="module", params=[MAFSampler, IAFSampler])
def fitted(request):
    torch.manual_seed(0)
    return request.param(**QUICK).setup(LinearModel()).fit(Draws(banana(4000)))


def test_the_fit_is_close_to_the_truth(fitted):
    """KL(p || fit) by fresh draws; a Gaussian with the right moments is 0.6 nats away."""
    z = banana(5000)
    divergence = float((log_density(z) - fitted.log_prob(z)).mean())
    gaussian = torch.distributions.MultivariateNormal(z.mean(0), z.T.cov())
    far = float((log_density(z) - gaussian.log_prob(z)).mean())
    assert -0.02 < divergence < 0.2 < 0.4 < far


def test_its_density_integrates_to_one(fitted):
    x, y = torch.linspace(-9, 15, 300), torch.linspace(-6, 20, 300)
    points = torch.cartesian_prod(x, y)
    mass = float(fitted.log_prob(points).double().exp().sum() * (x[1] - x[0]) * (y[1] - y[0]))
    assert mass == pytest.approx(1, abs=0.02)


def test_draws_follow_its_density(fitted):
    """E[-log q] over draws is the entropy, by an importance sum over the grid."""
    torch.manual_seed(1)
    z = fitted.sample(4000).z
    values = -fitted.log_prob(z)
    x, y = torch.linspace(-9, 15, 400), torch.linspace(-6, 20, 400)
    log_q = fitted.log_prob(torch.cartesian_prod(x, y)).double()
    entropy = float(-(log_q.exp() * log_q).sum() * (x[1] - x[0]) * (y[1] - y[0]))
    assert abs(float(values.mean()) - entropy) <= 4.5 * float(values.std()) / math.sqrt(4000) + 0.02


def test_temperature_scales_the_noise(fitted):
    fitted.temperature = 0.0
    cold = fitted.sample(5).z
    fitted.temperature = 1.0
    assert (cold - cold[0]).abs().max() < 1e-5
    assert fitted.sample(50).z.std() > 0.5


def test_a_conditional_model_gets_a_conditional_flow():
    class Labelled(LinearModel):
        num_classes = 3

        def draw_labels(self, num_samples):
            return torch.randint(3, (num_samples,))

    torch.manual_seed(0)
    y = torch.randint(3, (1500,))
    z = torch.randn(1500, 2) + 4 * y[:, None]
    sampler = MAFSampler(**QUICK).setup(Labelled()).fit(Draws(z, y))
    asked = torch.tensor([0] * 300 + [2] * 300)
    draws = sampler.sample(600, asked)
    assert torch.equal(draws.y, asked)
    assert draws.z[:300].mean() == pytest.approx(0, abs=0.4)
    assert draws.z[300:].mean() == pytest.approx(8, abs=0.4)
    free = sampler.sample(600)
    centre = torch.stack([free.z[free.y == k].mean() for k in range(3)])
    torch.testing.assert_close(centre, torch.tensor([0.0, 4.0, 8.0]), atol=0.5, rtol=0)
    with pytest.raises(ValueError, match="no labels"):
        sampler.fit(Draws(z))


def test_too_few_latents_are_refused():
    with pytest.raises(ValueError, match="at least 20 latents"):
        MAFSampler(**QUICK).setup(LinearModel()).fit(Draws(torch.randn(10, 2)))
