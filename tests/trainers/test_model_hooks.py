"""What a model is told of its training: before the first step, after every step, at the end of every epoch."""

from __future__ import annotations

import ast
import os
import signal
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import torch
from torch import nn

import vaebench.trainers
from tests.trainers.test_resume import At, contents
from tests.trainers.toy_models import CPU, DIM, Exploding, Toy, toy, toy_data
from vaebench.core import Loss, Model
from vaebench.hardware import collective
from vaebench.hardware.signals import NAMES, Interrupted
from vaebench.runs.run import Run
from vaebench.trainers import BaseTrainer
from vaebench.trainers.callbacks.callback import Callback


class Told(Toy):
    """Keeps in buffers what it is told, as codes and persistent chains do."""

    def __init__(self):
        super().__init__()
        self.register_buffer("first", torch.zeros(DIM))
        self.register_buffer("average", torch.zeros(DIM))
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))
        self.num_starts = 0

    def before_training(self, train):
        self.num_starts += 1
        self.first.copy_(train.batch(torch.arange(len(train))).x.mean(0) + torch.randn(DIM))

    def after_step(self, batch):
        noise = collective.standard_normal(batch.x.shape, like=batch.x)
        self.average.lerp_(collective.gather(batch.x + 0.1 * noise).mean(0), 0.1)
        self.num_steps += 1


def train(path=None, callbacks=(), kind=Told, seed=1, **options):
    torch.manual_seed(seed)
    model = toy(kind)
    torch.manual_seed(seed)
    trainer = BaseTrainer(**{"num_epochs": 2, "batch_size": 10, "ema_decay": 0.9, **options})
    run = None if path is None else Run(path)
    return trainer.train(model, toy_data(), run=run, callbacks=callbacks, hardware=CPU, seed=5)


def send(name):
    os.kill(os.getpid(), getattr(signal, name))


def test_a_new_training_initialises_the_model_once_and_a_resumed_one_never(tmp_path):
    first = train(tmp_path, num_epochs=1).model
    assert first.num_starts == 1
    again = train(tmp_path, num_epochs=2).model
    assert again.num_starts == 0
    assert torch.equal(again.first, first.first)
    assert again.num_steps == 10


def test_initialising_draws_from_a_stream_of_its_own():
    plain = train(kind=Toy).model
    told = train(seed=2)
    assert torch.equal(told.model.first, train(seed=3).model.first)  # whatever was drawn before
    assert not torch.equal(told.model.first, toy_data().train.x.mean(0))
    silent = type("Silent", (Told,), {"after_step": Model.after_step})
    for name, value in plain.state_dict().items():  # and takes nothing from the others
        assert torch.equal(train(kind=silent).model.state_dict()[name], value)


def test_a_step_is_told_of_when_weights_have_moved_and_with_its_own_examples():
    seen = []

    class Listening(Exploding):
        def after_step(self, batch):
            assert not torch.is_grad_enabled()
            seen.append(batch.index.tolist())

    training = train(kind=Listening, non_finite="skip", validate_every=None)
    assert training.step == 10
    assert len(seen) == 9  # the third was left out
    assert sorted(index for batch in seen[4:] for index in batch) == list(range(50))


@pytest.mark.parametrize("step", [1, 4, 5, 8])
def test_what_it_was_told_is_resumed_exactly(step, tmp_path):
    train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tmp_path / "parted", [At(step, lambda: send("SIGTERM"))])
    train(tmp_path / "parted", seed=9)
    assert contents(tmp_path / "parted") == contents(tmp_path / "whole")


class Growing(Told):
    """Its statistics have as many rows as were read; a signal comes in their middle."""

    signal_at = ()

    def __init__(self):
        super().__init__()
        self.register_buffer("rows", torch.zeros(0, DIM))

    def end_epoch(self, train, batch_size):
        self.rows = torch.zeros(0, DIM)
        for number, rows in enumerate(torch.arange(len(train)).split(20)):
            if ("end_epoch", number, int(self.num_steps)) in self.signal_at:
                type(self).signal_at = ()
                send("SIGTERM")
            self.rows = torch.cat([self.rows, train.batch(rows).x + torch.randn(len(rows), DIM)])

    def before_training(self, train):
        for number, rows in enumerate(torch.arange(len(train)).split(20)):
            if ("before_training", number) in self.signal_at:
                type(self).signal_at = ()
                send("SIGTERM")
            self.first += train.batch(rows).x.sum(0)

    def validation_loss(self, batch, step):
        if ("validation", int(batch.index[0]), int(self.num_steps)) in self.signal_at:
            type(self).signal_at = ()
            send("SIGUSR1")
        return super().validation_loss(batch, step)

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        self.rows = torch.zeros_like(state_dict[f"{prefix}rows"])
        super()._load_from_state_dict(state_dict, prefix, *rest)


@pytest.mark.parametrize(
    "moment",
    [("before_training", 1), ("end_epoch", 1, 5), ("end_epoch", 2, 10), ("validation", 0, 5), ("validation", 0, 10)],
)
@pytest.mark.parametrize("goes_on", [False, True])
def test_signal_between_steps_is_heeded_and_changes_nothing(moment, goes_on, tmp_path, monkeypatch):
    options = {"kind": Growing, "batch_size": 10, "scheduler": "ReduceLROnPlateau"}
    train(tmp_path / "whole", **options)
    monkeypatch.setattr(Growing, "signal_at", (moment,))
    signum = signal.SIGUSR1 if moment[0] == "validation" else signal.SIGTERM
    seen = []
    former = signal.signal(signum, (lambda *rest: seen.append(rest)) if goes_on else signal.SIG_DFL)
    try:
        if goes_on:  # a cluster's handler lets it
            train(tmp_path / "parted", **options)
            assert len(seen) == 1
        else:
            with pytest.raises(Interrupted):
                train(tmp_path / "parted", **options)
            status = Run(tmp_path / "parted").read_status()
            assert (status["status"], status["step"]) == ("interrupted", 0 if len(moment) == 2 else moment[2])
            assert Run(tmp_path / "parted").last_state.exists() == (len(moment) == 3)
            train(tmp_path / "parted", seed=9, **options)
    finally:
        signal.signal(signum, former)
    assert contents(tmp_path / "parted") == contents(tmp_path / "whole")


def test_long_work_between_steps_is_shown(monkeypatch):
    shown = []

    class Watching(Callback):
        def on_progress(self, training, name, done, total):
            shown.append((name, done, total))

    train(kind=Growing, callbacks=[Watching()], num_epochs=1)
    assert shown == [
        *(("initialising from the training split", done, 50) for done in (0, 20, 40)),
        *(("end of epoch 1", done, 50) for done in (0, 20, 40)),
        *(("validation", done, 2) for done in (0, 1)),
    ]


class Energy(Model):
    """A density known up to a constant, trained by contrast with noise: no likelihood, no latent."""

    def __init__(self, shape=(DIM,)):
        super().__init__()
        self.shape = tuple(shape)
        self.energy = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.Tanh(), nn.Linear(8, 1))
        self.energy(torch.zeros(1, *self.shape))

    def loss(self, batch, step):
        noise = collective.standard_normal(batch.x.shape, like=batch.x)
        data, other = self.energy(batch.x)[:, 0], self.energy(noise)[:, 0]
        contrast = data - other + 0.1 * (data.square() + other.square())
        return Loss.mean(contrast, energy=data)


def test_a_model_without_likelihood_or_latents_trains_with_every_default(tmp_path):
    train(tmp_path, kind=Energy, ema_decay=None)
    assert Run(tmp_path).best_weights.is_file()
    assert Run(tmp_path).read_status()["status"] == "done"


def test_signals_of_every_batch_system_are_known():
    assert set(NAMES) >= {"SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"}


def test_no_two_files_of_the_trainers_know_each_other():
    """Nor in a circle of more, and not in type hints either: imports under TYPE_CHECKING count."""
    folder = Path(vaebench.trainers.__file__).parent
    graph: dict[str, set[str]] = {}
    for file in folder.rglob("*.py"):
        if file.name == "__init__.py":  # it only names what the files define
            continue
        name = ".".join(("vaebench.trainers", *file.relative_to(folder).with_suffix("").parts))
        imported = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vaebench.trainers"):
                imported |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        graph[name] = imported
    graph = {name: imported & graph.keys() for name, imported in graph.items()}
    assert graph["vaebench.trainers.trainer"]
    TopologicalSorter(graph).prepare()  # raises CycleError, with the circle


def test_a_loss_that_is_no_loss_is_told():
    class Bare(Toy):
        def loss(self, batch, step):
            return super().loss(batch, step).total

    with pytest.raises(ValueError, match=r"a vaebench.core.Loss, got Tensor; return Loss.mean"):
        BaseTrainer(num_epochs=1, batch_size=10).train(Bare(), toy_data(), hardware=CPU)
