"""Fitted samplers reproduce a known distribution of latents: two-sample tests at a stated level."""

from __future__ import annotations

import math

import pytest
import torch

from tests.samplers.test_samplers import LinearModel
from vaebench.core import Draws
from vaebench.samplers.gaussian_mixture import GaussianMixtureSampler
from vaebench.samplers.iaf import IAFSampler
from vaebench.samplers.kernel_density import KernelDensitySampler
from vaebench.samplers.latent_diffusion import LatentDiffusionSampler
from vaebench.samplers.maf import MAFSampler
from vaebench.samplers.two_stage import TwoStageSampler

LEVEL = 0.01  # of each test; seeds are fixed
NUM = 800
FLOW = {"num_transforms": 3, "hidden_features": (32, 32), "num_epochs": 20, "learning_rate": 1e-2}
SAMPLERS = {
    "gaussian_mixture": lambda: GaussianMixtureSampler(12),
    "kernel_density": KernelDensitySampler,
    "maf": lambda: MAFSampler(**FLOW),
    "iaf": lambda: IAFSampler(**FLOW),
    "two_stage": lambda: TwoStageSampler(
        hidden_dim=96, num_layers=2, num_epochs=40, learning_rate=3e-3, batch_size=100
    ),
    "latent_diffusion": lambda: LatentDiffusionSampler(
        hidden_dim=64, num_blocks=2, num_timesteps=100, num_epochs=40, learning_rate=5e-3
    ),
}


def moons(num: int) -> torch.Tensor:
    t, is_upper = math.pi * torch.rand(num), torch.rand(num) < 0.5
    upper, lower = torch.stack([t.cos(), t.sin()], 1), torch.stack([1 - t.cos(), 0.5 - t.sin()], 1)
    return torch.where(is_upper[:, None], upper, lower) + 0.15 * torch.randn(num, 2)


def p_value(a: torch.Tensor, b: torch.Tensor, num_permutations: int = 999) -> float:
    """Of equal distributions, by permutations of the energy distance; exact whatever the distribution."""
    pooled = torch.cat([a, b]).double()
    distances = torch.cdist(pooled, pooled)
    signs = torch.ones(1 + num_permutations, len(pooled), dtype=torch.float64)
    signs[0, len(a) :] = -1
    for row in signs[1:]:
        row[torch.randperm(len(pooled))[: len(b)]] = -1
    statistic = -((signs @ distances) * signs).sum(1)  # for samples of one size the energy distance, up to a factor
    return float((statistic >= statistic[0]).double().mean())


@pytest.fixture(scope="module", params=SAMPLERS)
def fitted(request):
    torch.manual_seed(0)
    return SAMPLERS[request.param]().setup(LinearModel()).fit(Draws(moons(2000)))


def test_draws_cannot_be_told_from_the_truth(fitted):
    torch.manual_seed(1)
    assert p_value(fitted.sample(NUM).z, moons(NUM)) > LEVEL


def test_draws_of_another_scale_can(fitted):
    """The test has power: the same draws, a third wider."""
    torch.manual_seed(2)
    z = fitted.sample(NUM).z
    assert p_value(z.mean(0) + 1.33 * (z - z.mean(0)), moons(NUM)) <= LEVEL


def test_a_gaussian_of_the_right_moments_fails():
    """The negative control: one component has mean and covariance, and not the shape."""
    torch.manual_seed(3)
    one = GaussianMixtureSampler(1).setup(LinearModel()).fit(Draws(moons(2000)))
    assert p_value(one.sample(NUM).z, moons(NUM)) <= LEVEL


def test_the_level_is_the_level():
    """Two samples of one distribution differ at level 10 % in about a tenth of the tries: 4.5 sigma."""
    torch.manual_seed(4)
    values = torch.tensor([p_value(moons(40), moons(40), 99) for _ in range(100)])
    assert abs(float((values <= 0.1).double().mean()) - 0.1) <= 4.5 * math.sqrt(0.09 / 100)


class Labelled(LinearModel):
    num_classes = 2

    def draw_labels(self, num_samples):
        return (torch.rand(num_samples) < 0.25).long()


def two_clouds(y: torch.Tensor) -> torch.Tensor:
    """A cloud for each label, far from each other."""
    return 0.6 * torch.randn(len(y), 2) + 4.0 * y[:, None]


@pytest.mark.parametrize("name", sorted(SAMPLERS.keys() - {"maf", "iaf"}))  # these have a test of their own
def test_a_conditional_model_gets_latents_of_the_label(name):
    torch.manual_seed(5)
    y = Labelled().draw_labels(1200)
    sampler = SAMPLERS[name]()
    sampler.num_epochs = 50 if name == "two_stage" else 20
    sampler.setup(Labelled()).fit(Draws(two_clouds(y), y))
    asked = torch.arange(600) % 2
    draws = sampler.sample(600, asked)
    assert torch.equal(draws.y, asked)
    for label in (0, 1):
        z = draws.z[asked == label]
        torch.testing.assert_close(z.mean(0), torch.full((2,), 4.0 * label), atol=0.35, rtol=0)
        assert 0.4 < float(z.std()) < 0.9
    assert float(sampler.sample(400).y.double().mean()) == pytest.approx(0.25, abs=0.1)
    one_hot = torch.nn.functional.one_hot(asked, 2).double()
    assert sampler.sample(600, one_hot).z[asked == 1].mean() == pytest.approx(4, abs=0.5)
    with pytest.raises(ValueError, match="no labels"):
        sampler.fit(Draws(two_clouds(y)))
