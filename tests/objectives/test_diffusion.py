"""Steps of the reverse process by hand."""

import math

import pytest
import torch

from vaebench.objectives.diffusion import alpha_bars, reverse_step


def test_a_bounded_prediction_takes_its_noise_along():
    """x_0 = (2 - 0.6 * 0.5) / 0.8 = 2.125 is kept at 1, and the noise is then (2 - 0.8) / 0.6 = 2."""
    x_t, epsilon = torch.tensor([2.0], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    mean, sigma = reverse_step(x_t, epsilon, 0.64, 0.81, eta=0.0, bound=1.0)
    assert sigma == 0
    assert float(mean) == pytest.approx(0.9 * 1 + math.sqrt(0.19) * 2)
    mean, _ = reverse_step(x_t, epsilon, 0.64, 0.81, eta=0.0)
    assert float(mean) == pytest.approx(0.9 * 2.125 + math.sqrt(0.19) * 0.5)


def test_ancestral_noise_has_the_smaller_published_variance():
    """(1 - 0.81) / (1 - 0.64) * beta with beta = 1 - 0.64 / 0.81."""
    _, sigma = reverse_step(torch.zeros(1), torch.zeros(1), 0.64, 0.81, eta=1.0)
    assert sigma**2 == pytest.approx(0.19 / 0.36 * (1 - 0.64 / 0.81))


def test_the_published_schedules():
    """Betas from 1e-4 to 0.02 (Ho et al., section 4), and for fewer times as noisy an end; eq. 17 of the cosine's."""
    linear, short, cosine = alpha_bars("linear", 1000), alpha_bars("linear", 200), alpha_bars("cosine", 1000)
    assert float(linear[0]) == 1
    assert float(1 - linear[1]) == pytest.approx(1e-4)
    assert float(1 - linear[1000] / linear[999]) == pytest.approx(0.02)
    assert float(linear[-1].log()) == pytest.approx(-1000 * 0.01005, rel=0.01)
    assert float(short[-1].log()) == pytest.approx(float(linear[-1].log()), rel=0.05)
    f = [math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2 for t in (0, 0.3)]
    assert float(cosine[300]) == pytest.approx(f[1] / f[0])
    assert float(1 - cosine[1000] / cosine[999]) == pytest.approx(0.999)


def test_a_schedule_that_there_is_not_is_told():
    with pytest.raises(ValueError, match="must be one of linear, cosine; got 'lineer'; did you mean 'linear'"):
        alpha_bars("lineer", 10)
