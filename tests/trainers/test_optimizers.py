"""Every optimiser and schedule by name; rates against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from vaebench.trainers.optimizers import (
    REFUSED_OPTIMIZERS,
    REFUSED_SCHEDULERS,
    LearningRateSchedule,
    build_optimizer,
    optimizer_names,
    scheduler_names,
)

NEEDED = {  # arguments without defaults
    "MultiStepLR": {"milestones": [2, 4]},
    "StepLR": {"step_size": 2},
    "ExponentialLR": {"gamma": 0.9},
    "CyclicLR": {"base_lr": 0.001, "max_lr": 0.1},
    "OneCycleLR": {"max_lr": 0.1},
    "CosineAnnealingWarmRestarts": {"T_0": 3},
}


def sgd(rate=0.1):
    return build_optimizer("SGD", [nn.Parameter(torch.zeros(3))], rate)


def rates(num, **options):
    schedule = LearningRateSchedule(sgd(), **options)
    found = []
    for _ in range(num):
        found.append(schedule.learning_rate)
        schedule.optimizer.step()
        schedule.after_update()
    return found


def test_every_optimizer_of_torch_is_taken_or_refused():
    known = {n for n, k in vars(torch.optim).items() if isinstance(k, type) and issubclass(k, torch.optim.Optimizer)}
    assert {"Adam", "AdamW", "SGD", "RMSprop"} <= set(optimizer_names())
    assert set(optimizer_names()) | REFUSED_OPTIMIZERS.keys() | {"Optimizer"} == known


@pytest.mark.parametrize("name", optimizer_names())
def test_every_optimizer_descends(name):
    weight = nn.Parameter(torch.ones(4, 4))  # a matrix: Muon takes nothing else
    optimizer = build_optimizer(name, [weight], 0.01)
    for _ in range(5):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    assert weight.detach().square().sum() < 16


@pytest.mark.parametrize("name", REFUSED_OPTIMIZERS)
def test_refused_optimizers_say_why(name):
    with pytest.raises(ValueError, match=f"trainer.optimizer={name} cannot be used: it "):
        build_optimizer(name, [nn.Parameter(torch.ones(1))], 0.1)


def test_adam_is_fused_unless_told_otherwise():
    weight = [nn.Parameter(torch.ones(1))]
    assert build_optimizer("Adam", weight, 0.1).defaults["fused"] is True
    assert build_optimizer("Adam", weight, 0.1, {"foreach": True}).defaults["fused"] is None


@pytest.mark.parametrize(
    ("name", "rate", "arguments", "words"),
    [
        ("Adm", 0.1, {}, "there is no 'Adm' in torch.optim; did you mean 'Adam'"),
        (
            "Adam",
            0.1,
            {"weight_dcay": 1},
            "optimizer_args: Adam takes no 'weight_dcay'; did you mean 'weight_decay'",
        ),
        ("Adam", 0.1, {"lr": 1}, "set trainer.learning_rate instead"),
        ("Adam", -0.1, {}, "trainer.learning_rate must be above 0 and finite; got -0.1"),
        ("Adam", math.nan, {}, "trainer.learning_rate must be above 0 and finite; got nan"),
        ("Adam", 0.1, {"betas": [0.9, 2.0]}, "trainer.optimizer=Adam cannot be used: Invalid beta"),
    ],
)
def test_mistakes_in_optimizers_are_one_sentence(name, rate, arguments, words):
    with pytest.raises(ValueError, match=words):
        build_optimizer(name, [nn.Parameter(torch.ones(1))], rate, arguments)


def test_every_schedule_of_torch_is_taken_or_refused():
    base = lr_scheduler.LRScheduler
    known = {n for n, k in vars(lr_scheduler).items() if isinstance(k, type) and issubclass(k, base)}
    known -= {"LRScheduler", "_LRScheduler"}
    assert set(scheduler_names()) - {"cosine"} | REFUSED_SCHEDULERS.keys() == known


@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("name", scheduler_names())
def test_every_schedule_runs_and_continues(name, interval):
    def run(schedule, first, last):
        found = []
        for step in range(first, last):
            schedule.optimizer.step()
            schedule.after_update()
            if step % 2:
                schedule.after_validation(1.0)
                schedule.after_epoch()
            found.append(schedule.learning_rate)
        return found

    options = {"name": name, "arguments": NEEDED.get(name), "interval": interval, "num_steps": 8, "num_epochs": 4}
    whole = run(LearningRateSchedule(sgd(), **options, warmup_steps=3), 0, 8)
    first, second = (
        LearningRateSchedule(sgd(), **options, warmup_steps=3),
        LearningRateSchedule(sgd(), **options, warmup_steps=3),
    )
    parted = run(first, 0, 5)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    assert whole == parted + run(second, 5, 8)
    assert all(math.isfinite(rate) and rate >= 0 for rate in whole)


@pytest.mark.parametrize("name", REFUSED_SCHEDULERS)
def test_refused_schedules_say_why(name):
    with pytest.raises(ValueError, match=f"trainer.scheduler={name} cannot be used: it takes"):
        LearningRateSchedule(sgd(), name)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("CosineAnealingLR", None, "did you mean 'CosineAnnealingLR'"),
        ("StepLR", None, "trainer.scheduler=StepLR needs trainer.scheduler_args with step_size"),
        ("StepLR", {"step": 3}, "StepLR takes no 'step'; did you mean 'step_size'"),
        (None, {"step_size": 3}, "trainer.scheduler_args are given, but no trainer.scheduler"),
        ("cosine", {"final_fraction": 2}, "final_fraction must be at least 0 and at most 1; got 2"),
    ],
)
def test_mistakes_in_schedules_are_one_sentence(name, arguments, words):
    with pytest.raises(ValueError, match=words):
        LearningRateSchedule(sgd(), name, arguments)


def test_warm_up_rises_linearly_then_stays():
    assert rates(7, warmup_steps=4) == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1, 0.1])


def test_cosine_follows_its_formula():
    found = rates(10, name="cosine", arguments={"final_fraction": 0.1}, num_steps=10, warmup_steps=2)
    expected = [0.05, 0.1] + [0.1 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * t / 8))) for t in range(8)]
    assert found == pytest.approx(expected)


def test_warm_up_multiplies_a_schedule_of_torch():
    alone = rates(8, name="ExponentialLR", arguments={"gamma": 0.9}, interval="step")
    warmed = rates(8, name="ExponentialLR", arguments={"gamma": 0.9}, interval="step", warmup_steps=5)
    factors = [min(1.0, (n + 1) / 5) for n in range(8)]
    assert warmed == pytest.approx([rate * factor for rate, factor in zip(alone, factors, strict=True)])


def test_length_of_the_training_is_the_default_length():
    found = rates(5, name="CosineAnnealingLR", interval="step", num_steps=4)
    assert found[4] == pytest.approx(0.0, abs=1e-9)


def test_schedule_at_its_end_is_one_sentence():
    with pytest.raises(ValueError, match=r"trainer.scheduler=OneCycleLR cannot go on: Tried to step 5 times"):
        rates(6, name="OneCycleLR", arguments={"max_lr": 0.1}, interval="step", num_steps=4)
