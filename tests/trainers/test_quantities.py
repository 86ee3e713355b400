"""Numbers and orders that a constant could spoil: norms, clipping, noise, what is on the disk first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.trainers.toy_models import CPU, Spy, Toy, toy, toy_data, train, weights
from vaebench.core import Loss
from vaebench.hardware.device import Hardware
from vaebench.runs.run import Run
from vaebench.trainers import BaseTrainer
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.divergence import DivergenceWatch


class Slope(Toy):
    """A loss whose gradient is the same at every point: `size` in every parameter."""

    size = 1.0

    def __init__(self):
        super().__init__(plain=True)

    def loss(self, batch, step):
        return Loss(self.size * sum(p.sum() for p in self.parameters()))


def slope(norm):
    model = toy(Slope)
    model.size = norm / weights(model).numel() ** 0.5
    return model


def test_gradient_norm_is_the_root_of_the_sum_of_squares():
    spy = Spy()
    train(slope(2.0), callbacks=[spy], gradient_clip_norm=1e3)
    assert [float(norm) for (norm,) in spy.norms] == pytest.approx([2.0] * 10)


@pytest.mark.parametrize(
    ("norm", "limit", "expected"), [(0.2, 0.5, 0.2), (0.8, 0.5, 0.5), (0.8, 1.0, 0.8), (3.0, 2.0, 2.0)]
)
def test_a_gradient_is_clipped_above_its_limit_and_left_below_it(norm, limit, expected):
    spy = Spy()
    train(slope(norm), callbacks=[spy], gradient_clip_norm=limit, optimizer="SGD", learning_rate=1.0, num_steps=3)
    moved = [float((after - before).norm()) for before, after in zip(spy.weights, spy.weights[1:], strict=False)]
    assert moved == pytest.approx([expected] * 3, rel=1e-4)


def test_each_end_of_an_epoch_has_noise_of_its_own():
    centres = []

    class Watching(Callback):
        def on_epoch_end(self, training):
            centres.append(training.model.centre.clone())

    train(callbacks=[Watching()], num_epochs=3)
    assert not torch.allclose(centres[0], centres[1])
    assert not torch.allclose(centres[1], centres[2])


def test_half_precision_has_a_gradient_scaler(monkeypatch):
    monkeypatch.setattr(Hardware, "torch_device", property(lambda self: torch.device("cpu")))
    assert isinstance(Hardware(precision="fp16").scaler(), torch.amp.GradScaler)
    for precision in ("fp32", "tf32", "bf16"):
        assert Hardware(precision=precision).scaler() is None


def test_metrics_are_on_the_disk_before_a_checkpoint_counts_them(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor):
        events.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def renamed(source, target, **options):
        events.append(("rename", Path(target).name))
        replace(source, target, **options)

    if not Path("/proc/self/fd").exists():
        pytest.skip("the system does not name open files")
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    train(run=Run(tmp_path), num_epochs=1)
    last = len(events) - 1 - events[::-1].index(("rename", "last.state"))
    before = events[:last]
    start = len(before) - 1 - before[::-1].index(("rename", "last.safetensors"))
    assert ("sync", "metrics.jsonl") in before[:start]
    assert ("sync", "checkpoints") in events[start : last + 3]  # the folder itself, so that the rename survives


@pytest.mark.parametrize(
    ("first", "mean", "diverges"),
    [(180.0, 1800.0, False), (180.0, 1981.0, True), (-50.0, 440.0, False), (-50.0, 451.0, True), (0.1, 100.0, False)],
)
def test_divergence_is_ten_times_the_first_loss_above_it(first, mean, diverges, caplog):
    watch = DivergenceWatch()
    watch.note({"rate": torch.tensor(1.0), "loss": torch.tensor(first)})
    watch.note({"rate": torch.tensor(1.0), "loss": torch.tensor(1e9)})  # not the first step
    watch.check(3, {"rate": 1e9, "loss": mean})
    assert (watch.sentence is not None) == diverges == ("training has diverged: loss was" in caplog.text)
    moving = DivergenceWatch(enabled=False)
    moving.note({"loss": torch.tensor(first)})
    moving.check(3, {"loss": 1e9})
    assert moving.sentence is None
    again = DivergenceWatch()
    again.load_state_dict(watch.state_dict())
    caplog.clear()
    again.check(4, {"rate": 1e9, "loss": mean})
    assert not caplog.text  # told once
    again.check(5, {"loss": first})
    assert again.sentence is None


def test_the_models_criterion_chooses_the_best_weights(tmp_path):
    class Other(Toy):
        best_criterion = ("rate", "max")

    training = train(toy(Other), run=Run(tmp_path), num_epochs=4)
    rates = [row["rate"] for row in training.history if row["split"] == "validation"]
    assert training.best == max(rates)

    class Nothing(Toy):
        best_criterion = None

    train(toy(Nothing), run=Run(tmp_path / "none"))
    assert not Run(tmp_path / "none").best_weights.exists()
    with pytest.raises(ValueError, match="early stopping needs a metric"):
        train(toy(Nothing), patience=3)


@pytest.mark.parametrize(
    ("options", "criterion", "expected"),
    [
        ({}, ("loss", "min"), ("loss", "min")),
        ({}, ("elbo", "max"), ("elbo", "max")),
        ({}, None, None),
        ({"keep_best": None}, ("loss", "min"), None),
        ({"keep_best": "rate"}, ("elbo", "max"), ("rate", "min")),
        ({"keep_best": "elbo"}, ("elbo", "max"), ("elbo", "max")),
        ({"keep_best": "rate", "keep_best_mode": "max"}, None, ("rate", "max")),
        ({"keep_best_mode": "max"}, ("loss", "min"), ("loss", "max")),
        ({"validate_every": None}, ("loss", "min"), None),
    ],
)
def test_criterion_is_the_users_or_else_the_models(options, criterion, expected):
    assert BaseTrainer(**options).best_by(criterion) == expected


def test_a_model_in_double_precision_trains_on_the_librarys_data():
    model = toy(plain=True).double()
    training = BaseTrainer(num_epochs=1, batch_size=10).train(model, toy_data(), hardware=CPU)
    assert weights(model).dtype == torch.float64
    assert training.train.batch(torch.arange(2)).x.dtype == torch.float64
