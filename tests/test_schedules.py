"""Schedules against their formulas, at the ends, on the way, and one step past."""

import math

import pytest

from vaebench import schedules as s


def values(schedule, *steps):
    return [schedule(step) for step in steps]


def test_linear():
    assert values(s.LinearScheduler(1.0, 3.0, 4), 0, 1, 4, 5, 100) == [1.0, 1.5, 3.0, 3.0, 3.0]
    assert s.LinearScheduler(0.0, 2.0, 0)(0) == 2.0


def test_cosine():
    expected = [3.0, 1 + 2 * (1 + math.cos(math.pi / 4)) / 2, 2.0, 1.0, 1.0]
    assert values(s.CosineScheduler(3.0, 1.0, 4), 0, 1, 2, 4, 5) == pytest.approx(expected)


def test_sigmoid_meets_both_ends_and_is_steepest_in_the_middle():
    schedule = s.SigmoidScheduler(0.0, 2.0, 10, sharpness=4.0)
    assert values(schedule, 0, 5, 10, 11) == pytest.approx([0.0, 1.0, 2.0, 2.0])
    logistic = [1 / (1 + math.exp(-u)) for u in (-4.0, -2.4, 4.0)]
    assert schedule(2) == pytest.approx(2 * (logistic[1] - logistic[0]) / (logistic[2] - logistic[0]))


def test_cyclical():
    schedule = s.CyclicalScheduler(0.0, 1.0, period=10, ramp_fraction=0.5, num_cycles=2)
    assert values(schedule, 0, 2, 5, 9, 10, 12, 19, 20, 31) == pytest.approx([0, 0.4, 1, 1, 0, 0.4, 1, 1, 1])
    assert s.CyclicalScheduler(0.0, 1.0, period=10, num_cycles=None)(40) == 0.0


def test_exponential():
    assert values(s.ExponentialDecayScheduler(2.0, 0.5, 0.3), 0, 1, 2, 3) == [2.0, 1.0, 0.5, 0.3]


def test_multistep():
    expected = [1.0, 1.0, 0.1, 0.1, 0.01]
    assert values(s.MultiStepScheduler(1.0, (3, 5), 0.1), 0, 2, 3, 4, 5) == pytest.approx(expected)


def test_warmup():
    schedule = s.WarmupScheduler(s.LinearScheduler(2.0, 4.0, 2), warmup_steps=4, warmup_init_factor=0.5)
    assert values(schedule, 0, 2, 4, 5, 6, 7) == [1.0, 1.5, 2.0, 3.0, 4.0, 4.0]


def test_constant_then_linear():
    schedule = s.ConstantThenLinearScheduler(0.1, 1.1, constant_steps=3, n_steps=10)
    assert values(schedule, 0, 2, 3, 8, 13, 14) == pytest.approx([0.1, 0.1, 0.1, 0.6, 1.1, 1.1])


def test_temperature():
    schedule = s.TemperatureScheduler(0.4, tau_star=0.5, n_steps=10, sqrt=False)
    assert values(schedule, 0, 4, 5, 6, 10, 20) == pytest.approx([0.0, 0.0, 0.0, 0.08, 0.4, 0.4])
    assert s.TemperatureScheduler(0.04, n_steps=10)(10) == pytest.approx(0.2)


def test_a_number_is_a_constant():
    assert s.as_schedule(2)(7) == 2.0
    ramp = s.LinearScheduler()
    assert s.as_schedule(ramp) is ramp


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: s.LinearScheduler(n_steps=-1), "n_steps must be a whole number of at least 0; got -1"),
        (lambda: s.CyclicalScheduler(ramp_fraction=0), "ramp_fraction must be above 0 and at most 1; got 0"),
        (lambda: s.MultiStepScheduler(milestones=(5, 5)), "milestones must be strictly increasing"),
        (lambda: s.ExponentialDecayScheduler(decay_rate=1.5), "decay_rate must be above 0 and at most 1; got 1.5"),
        (lambda: s.SigmoidScheduler(sharpness=math.nan), "sharpness must be above 0 and finite; got nan"),
        (lambda: s.TemperatureScheduler(tau_star=1), "tau_star must be at least 0 and below 1; got 1"),
    ],
)
def test_mistakes(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
