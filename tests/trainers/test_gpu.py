"""What only a GPU can show; elsewhere these are skipped."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from tests.trainers.test_resume import At, contents
from tests.trainers.toy_models import History, Toy, ToyAdversarial, toy_data
from vaebench.hardware.device import Hardware
from vaebench.hardware.signals import Interrupted
from vaebench.runs.run import Run
from vaebench.trainers import AdversarialTrainer, BaseTrainer
from vaebench.trainers.state import load_state

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def train(path=None, callbacks=(), kind=Toy, trainer=BaseTrainer, hardware=None, plain=True, **options):
    torch.manual_seed(0)
    model = kind(plain=plain)
    options = {"num_epochs": 4, "batch_size": 8, "ema_decay": 0.9, **options}
    run = None if path is None else Run(path)
    hardware = hardware or Hardware(device="gpu", deterministic=True)
    rows = History()
    training = trainer(**options).train(model, toy_data(), run=run, callbacks=[*callbacks, rows], hardware=hardware)
    training.history = rows.rows
    return training, model


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(("kind", "trainer"), [(Toy, BaseTrainer), (ToyAdversarial, AdversarialTrainer)])
def test_interrupted_run_continues_to_the_same_bytes(kind, trainer, precision, tmp_path):
    options = {"kind": kind, "trainer": trainer, "plain": False}
    options["hardware"] = Hardware(device="gpu", deterministic=True, precision=precision)
    train(tmp_path / "whole", **options)
    with pytest.raises(Interrupted):
        train(tmp_path / "parted", [At(11, lambda: os.kill(os.getpid(), signal.SIGTERM))], **options)
    train(tmp_path / "parted", **options)
    assert contents(tmp_path / "parted") == contents(tmp_path / "whole")
    assert "cuda" in load_state(Run(tmp_path / "whole").last_state)["rng"]


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_precisions_stay_close(precision):
    exact, _ = train()
    rough, _ = train(hardware=Hardware(device="gpu", precision=precision))
    assert rough.history[-1]["loss"] == pytest.approx(exact.history[-1]["loss"], rel=0.05)


def test_steps_do_not_wait_for_the_device():
    training = BaseTrainer(num_epochs=1, batch_size=8).start(
        Toy(plain=True), toy_data(), hardware=Hardware(device="gpu")
    )
    training.call("on_train_start")
    training.model.train()
    batch = training.train.batch(torch.arange(8))
    training.train_step(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            training.train_step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_data_stay_on_the_host_when_told():
    near, model = train()
    far, other = train(hardware=Hardware(device="gpu", deterministic=True, data_on_device=False))
    assert near.train.device.type == "cuda"
    assert far.train.device.type == "cpu"
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q)
