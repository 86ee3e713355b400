"""A training that stops anywhere and goes on equals one that never stopped, to the bit."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from tests.trainers.toy_models import History, Toy, ToyAdversarial, ToyCoupled, ToyCoupledAdversarial, toy_data
from vaebench.hardware.device import Hardware
from vaebench.hardware.signals import Interrupted
from vaebench.runs.run import Run
from vaebench.trainers import (
    AdversarialTrainer,
    BaseTrainer,
    CoupledOptimizerAdversarialTrainer,
    CoupledOptimizerTrainer,
)
from vaebench.trainers.batches import data_order
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.state import load_state

KINDS = {
    "base": (Toy, BaseTrainer, {}),
    "adversarial": (ToyAdversarial, AdversarialTrainer, {"num_critic_steps": 2}),
    "coupled": (ToyCoupled, CoupledOptimizerTrainer, {}),
    "coupled_adversarial": (ToyCoupledAdversarial, CoupledOptimizerAdversarialTrainer, {"num_critic_steps": 2}),
}
OPTIONS = {
    "num_epochs": 4,
    "batch_size": 8,
    "ema_decay": 0.9,
    "scheduler": "StepLR",
    "scheduler_args": {"step_size": 1, "gamma": 0.7},
    "warmup_steps": 5,
    "patience": 50,
    "gradient_clip_norm": 1.0,
}


class At(Callback):
    """Does something after one step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_end(self, training):
        if training.step == self.step:
            self.action()


def crash():
    raise RuntimeError("pulled the plug")


def train(kind, path, callbacks=(), **options):
    model_class, trainer_class, own = KINDS[kind]
    torch.manual_seed(3)
    trainer = trainer_class(**{**OPTIONS, **own, **options})
    return trainer.train(model_class(), toy_data(), run=Run(path), callbacks=callbacks, seed=5)


def contents(path):
    return {file.relative_to(path): file.read_bytes() for file in sorted(path.rglob("*")) if is_result(file)}


def is_result(file):
    return file.is_file() and file.name not in ("status.json", ".lock")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [1, 3, 7, 8, 20, 28])  # 7 steps an epoch, 28 in all
def test_interrupted_run_continues_to_the_same_bytes(kind, step, tmp_path):
    train(kind, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(kind, tmp_path / "parted", [At(step, lambda: os.kill(os.getpid(), signal.SIGTERM))])
    status = Run(tmp_path / "parted").read_status()
    assert (status["status"], status["step"]) == ("interrupted", step)
    torch.manual_seed(99)  # where the second process starts must not matter
    train(kind, tmp_path / "parted")
    assert contents(tmp_path / "parted") == contents(tmp_path / "whole")
    assert Run(tmp_path / "parted").read_status()["status"] == "done"


@pytest.mark.parametrize("step", [2, 9, 15])
def test_crashed_run_repeats_from_its_checkpoint(step, tmp_path):
    train("base", tmp_path / "whole")
    with pytest.raises(RuntimeError):
        train("base", tmp_path / "parted", [At(step, crash)])
    assert Run(tmp_path / "parted").read_status()["status"] == "failed"
    train("base", tmp_path / "parted")
    assert contents(tmp_path / "parted") == contents(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["base", "adversarial"])
def test_gradient_scaler_continues_too(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(Hardware, "scaler", lambda self: torch.amp.GradScaler("cpu", growth_interval=3))
    train(kind, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(kind, tmp_path / "parted", [At(11, lambda: os.kill(os.getpid(), signal.SIGTERM))])
    train(kind, tmp_path / "parted")
    assert contents(tmp_path / "parted") == contents(tmp_path / "whole")
    assert load_state(Run(tmp_path / "whole").last_state)["scaler"]["scale"] != 2.0**16


def test_extended_run_equals_the_long_one(tmp_path):
    train("base", tmp_path / "whole")
    train("base", tmp_path / "parted", num_epochs=2)
    train("base", tmp_path / "parted", num_epochs=4)
    assert contents(tmp_path / "parted") == contents(tmp_path / "whole")


def test_finished_run_does_nothing_more(tmp_path):
    train("base", tmp_path, [History()])
    before = contents(tmp_path)
    again = train("base", tmp_path, [rows := History()])
    assert (again.step, rows.rows) == (28, [])
    assert contents(tmp_path) == before


def test_other_options_are_refused_by_name(tmp_path):
    train("base", tmp_path, num_epochs=1)
    with pytest.raises(ValueError, match=r"trainer.batch_size was 8 and is 9.*another hydra.run.dir"):
        train("base", tmp_path, batch_size=9)


def test_other_model_is_refused_by_name(tmp_path):
    train("base", tmp_path, num_epochs=1)
    with pytest.raises(ValueError, match=r"trainer was base and is coupled; .*model was Toy and is ToyCoupled"):
        train("coupled", tmp_path, num_epochs=1)


def test_state_holds_every_generator(tmp_path):
    train("base", tmp_path, num_epochs=1)
    assert {"python", "numpy", "torch"} <= load_state(tmp_path / "checkpoints" / "last.state")["rng"].keys()


def test_data_order_depends_on_epoch_and_seed_alone():
    torch.manual_seed(0)
    first = data_order(20, 3, 0)
    torch.manual_seed(1)
    assert torch.equal(first, data_order(20, 3, 0))
    assert not torch.equal(first, data_order(20, 3, 1))
    assert not torch.equal(first, data_order(20, 4, 0))
    assert torch.equal(first.sort().values, torch.arange(20))
