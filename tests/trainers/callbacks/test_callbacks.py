"""What the callbacks write, and that none of them changes a training."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.trainers.toy_models import History, Toy, ToyCoupled, toy_data
from vaebench.core import Loss
from vaebench.data.split import DataSplit
from vaebench.distributions.diagonal_gaussian import DiagonalGaussian
from vaebench.distributions.likelihoods import Bernoulli
from vaebench.hardware.device import Hardware
from vaebench.models.vae import VAE
from vaebench.networks import MLP
from vaebench.runs.run import Run
from vaebench.trainers import BaseTrainer, CoupledOptimizerTrainer
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.callbacks.checkpoint import Checkpoint
from vaebench.trainers.callbacks.early_stopping import EarlyStopping
from vaebench.trainers.callbacks.ema import EMA
from vaebench.trainers.callbacks.images import ImagesCallback
from vaebench.trainers.callbacks.metric_printer import MetricConsolePrinterCallback
from vaebench.trainers.callbacks.optimizer_monitor import OptimizerMonitor
from vaebench.trainers.callbacks.posterior_collapse import PosteriorCollapse, kl_per_dimension
from vaebench.trainers.callbacks.progress import ProgressBarCallback, is_interactive
from vaebench.trainers.callbacks.throughput import Throughput
from vaebench.trainers.state import load_state, load_weights

CPU = Hardware(device="cpu", threads=1)


def train(callbacks=(), run=None, model=None, data=None, kind=BaseTrainer, **options):
    torch.manual_seed(0)
    model = model or Toy()
    options = {"num_epochs": 3, "batch_size": 10, **options}
    history = History()
    training = kind(**options).train(model, data or toy_data(), run=run, callbacks=[*callbacks, history], hardware=CPU)
    training.history = history.rows
    return training


def pictures_data():
    x = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return SimpleNamespace(name="noise", shape=(1, 4, 4), train=DataSplit(x[:30]), validation=DataSplit(x[30:]))


def vae(latent_dim=3):
    torch.manual_seed(0)
    return VAE((1, 4, 4), likelihood=Bernoulli(), latent_dim=latent_dim, network=MLP(hidden_dims=(8,)))


def rows(training, split):
    return [row for row in training.history if row["split"] == split]


def test_watchers_change_no_weight(tmp_path):
    watchers = [
        EMA(0.9),
        EarlyStopping(50),
        MetricConsolePrinterCallback(),
        OptimizerMonitor(),
        ImagesCallback(every_epochs=1),
        PosteriorCollapse(),
        ProgressBarCallback(),
        Throughput(),
    ]
    plain, watched = vae(), vae()
    train(model=plain, data=pictures_data())
    train(watchers, Run(tmp_path), watched, pictures_data())
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), watched.parameters(), strict=True))


# Checkpoint


def test_checkpoint_is_there_from_the_start(tmp_path):
    class Looking(Callback):
        def on_step_start(self, training):
            seen.append(load_state(training.run.last_state)["step"])

    seen = []
    train([Looking()], Run(tmp_path), num_epochs=1)
    assert seen == [0] * 5


def test_checkpoint_follows_the_clock(tmp_path, monkeypatch):
    class Looking(Callback):
        def on_step_start(self, training):
            seen.append(load_state(training.run.last_state)["step"])
            clock[0] += 1.0

    clock, seen = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    train([Looking(), Checkpoint(every_seconds=1.5)], Run(tmp_path), num_epochs=1)
    assert seen == [0, 0, 2, 2, 4]


def test_checkpoint_without_wait_follows_the_epochs(tmp_path):
    class Looking(Callback):
        def on_epoch_start(self, training):
            seen.append(load_state(training.run.last_state)["epoch"])

    seen = []
    train([Looking(), Checkpoint(every_seconds=0)], Run(tmp_path))
    assert seen == [0, 1, 2]


def test_saved_weights_are_the_model(tmp_path):
    model = Toy()
    train(run=Run(tmp_path), model=model)
    saved = load_weights(Run(tmp_path).last_weights)
    assert saved.keys() == model.state_dict().keys()
    assert all(torch.equal(saved[name], value) for name, value in model.state_dict().items())


# Early stopping


@pytest.mark.parametrize(
    ("mode", "values", "stops_at"),
    [
        ("min", [3, 2, 2.5, 2.1, 1], 4),
        ("max", [3, 4, 3.5, 3.9, 5], 4),
        ("min", [3, 2.95, 2.9, 1, 1], 3),  # too small a step to count
        ("min", [3, 2, math.nan, 1.5, 1.45], None),
    ],
)
def test_early_stopping_counts(mode, values, stops_at):
    stopped = []
    training = SimpleNamespace(best_by=("loss", mode), stop=stopped.append)
    stopping = EarlyStopping(patience=2, min_delta=0.2)
    ends = []
    for value in values:
        stopping.on_evaluation_end(training, {"loss": value})
        ends.append(bool(stopped))
    assert (ends.index(True) + 1 if stopped else None) == stops_at


@pytest.mark.parametrize("option", ["validate_every", "keep_best"])
def test_early_stopping_without_a_metric_is_refused_before_there_is_a_run(option, tmp_path):
    with pytest.raises(ValueError, match=r"early stopping needs a metric: set trainer.validate_every"):
        BaseTrainer(batch_size=10, **{option: None}).start(
            Toy(), toy_data(), run=Run(tmp_path), callbacks=[EarlyStopping()], hardware=CPU
        )


def test_run_that_stopped_early_stays_stopped(tmp_path):
    first = train([EarlyStopping(1)], Run(tmp_path), learning_rate=1e-30, num_epochs=20)
    again = train([EarlyStopping(1)], Run(tmp_path), learning_rate=1e-30, num_epochs=20)
    assert again.step == first.step
    assert again.stop_reason.endswith("for 1 validation")


# Monitors


def test_monitor_logs_rates_and_norms():
    class Norms(Callback):
        def on_step_end(self, training):
            found.append(float(training.parts["model"].gradient_norm))

    found = []
    training = train([OptimizerMonitor(), Norms()], num_epochs=1, scheduler="StepLR", scheduler_args={"step_size": 1})
    (row,) = rows(training, "optimizer")
    assert row["learning_rate"] == pytest.approx(1e-4)
    assert row["gradient_norm"] == pytest.approx(sum(found) / len(found))
    assert row["largest_gradient_norm"] == pytest.approx(max(found))


def test_monitor_names_the_parts():
    training = train([OptimizerMonitor()], model=ToyCoupled(), kind=CoupledOptimizerTrainer, num_epochs=1)
    assert {"encoder_learning_rate", "decoder_gradient_norm"} <= rows(training, "optimizer")[0].keys()


def test_throughput_counts_examples():
    training = train([Throughput()])
    found = rows(training, "resources")
    assert len(found) == 3
    assert all(row["examples_per_second"] == pytest.approx(10 * row["steps_per_second"]) for row in found)
    assert all(row["peak_memory_mib"] > 10 for row in found)


def test_metric_printer_prints_its_epochs(caplog):
    caplog.set_level(logging.INFO)
    train([MetricConsolePrinterCallback(every_epochs=2)], num_epochs=5)
    printed = [record.message for record in caplog.records if "metric_printer" in record.name]
    assert [line.partition(",")[0] for line in printed] == ["epoch 2"] * 2 + ["epoch 4"] * 2 + ["epoch 5"] * 2
    assert "distortion" in printed[0]


# Progress


def test_progress_without_terminal_is_plain_lines(caplog, capfd):
    caplog.set_level(logging.INFO)
    train([ProgressBarCallback()], num_epochs=4)
    lines = [record.message for record in caplog.records if "progress" in record.name]
    assert lines[0].startswith("epoch 1, step 5 of 20: train loss ")
    assert lines[-1].startswith("epoch 4, step 20 of 20: train loss ")
    assert "\x1b" not in "".join(lines) + capfd.readouterr().err


def test_progress_speaks_within_long_epochs(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    clock = [0.0]

    def tick():
        clock[0] += 1.0
        return clock[0]

    monkeypatch.setattr(time, "monotonic", tick)
    train([ProgressBarCallback(every_seconds=0.5)], num_epochs=1)
    assert any(record.message == "epoch 1, step 3 of 5" for record in caplog.records)


def test_progress_bar_ends_with_the_training(capfd):
    train([ProgressBarCallback(bar=True)])
    assert "15/15 steps" in capfd.readouterr().err

    class Failing(Callback):
        def on_step_end(self, training):
            raise RuntimeError("broken")

    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(handler)
    before, progress = handler.stream, ProgressBarCallback(bar=True)
    try:
        with pytest.raises(RuntimeError):
            train([progress, Failing()])
    finally:
        logging.getLogger().removeHandler(handler)
    assert progress._bar is None
    assert handler.stream is before


@pytest.mark.parametrize(
    ("terminal", "mode", "expected"), [(0, None, 0), (1, None, 1), (1, "RUN", 1), (1, "MULTIRUN", 0)]
)
def test_bar_is_for_one_run_on_a_terminal(terminal, mode, expected, monkeypatch):
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: bool(terminal)))
    config = SimpleNamespace(initialized=lambda: mode is not None, get=lambda: SimpleNamespace(mode=f"RunMode.{mode}"))
    monkeypatch.setitem(sys.modules, "hydra.core.hydra_config", SimpleNamespace(HydraConfig=config))
    assert is_interactive() == bool(expected)


# Pictures


# Collapse


class Collapsing(Toy):
    """Its posterior mean is 0 in one dimension, and known in the other."""

    capabilities = frozenset({"posterior", "prior"})

    def __init__(self):
        super().__init__(plain=True)
        self.latent = nn.Parameter(torch.zeros(1))

    def encode(self, x, y=None):
        mean = torch.stack([x[:, 0], 0 * x[:, 0], 0 * x[:, 0]], 1)
        return DiagonalGaussian(mean, torch.tensor([0.0, 0.0, math.log(4.0)]).expand_as(mean))

    def prior(self, y=None):
        return DiagonalGaussian(torch.zeros(3), torch.zeros(3))

    def loss(self, batch, step):
        plain = super().loss(batch, step)
        return Loss(plain.total + 0 * self.latent.sum(), plain.terms)


def test_collapse_is_seen_and_told_once(caplog):
    data = toy_data()
    training = train([PosteriorCollapse()], model=Collapsing(), data=data)
    row = rows(training, "latent")[-1]
    assert (row["active_units"], row["active_share"]) == (1.0, pytest.approx(1 / 3))
    assert row["kl_nats_000"] == pytest.approx(float(0.5 * data.validation.x[:, 0].square().mean()), rel=1e-5)
    assert row["kl_nats_001"] == pytest.approx(0.0, abs=1e-7)
    assert row["kl_nats_002"] == pytest.approx(0.5 * (4 - 1 - math.log(4)), rel=1e-5)
    warnings = [record for record in caplog.records if "posterior collapse" in record.message]
    assert len(warnings) == 1


def test_a_unit_is_active_by_the_definition_of_the_metric(tmp_path):
    data = toy_data()
    variance = float(data.validation.x[:, 0].double().var())  # N - 1
    for threshold, active in ((variance * (1 - 1e-4), 1.0), (variance * (1 + 1e-4), 0.0)):
        training = train([PosteriorCollapse(threshold)], model=Collapsing(), data=data)
        assert rows(training, "latent")[-1]["active_units"] == active


def test_kl_of_each_dimension_sums_to_the_rate():
    model = vae()
    x = torch.rand(5, 1, 4, 4)
    rate = torch.distributions.kl_divergence(model.encode(x), model.prior())
    torch.testing.assert_close(kl_per_dimension(model.encode(x), model).sum(1), rate)


def test_collapse_of_a_model_without_posterior_is_not_watched(caplog):
    caplog.set_level("INFO")
    training = train([PosteriorCollapse()])
    assert "posterior_collapse watches nothing: Toy has no posterior: it does not encode examples" in caplog.text
    assert not rows(training, "latent")


# Mistakes


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Checkpoint(every_seconds=-1), "every_seconds must be at least 0 and finite; got -1"),
        (lambda: EarlyStopping(0), "patience must be a whole number of at least 1; got 0"),
        (lambda: EMA(1.0), "decay must be at least 0 and below 1"),
        (lambda: MetricConsolePrinterCallback(0), "every_epochs must be a whole number of at least 1"),
        (lambda: ImagesCallback(every_epochs=0), "every_epochs must be a whole number of at least 1, or null"),
        (lambda: ImagesCallback(animation=True), "animation needs callback.images.every_epochs"),
        (lambda: PosteriorCollapse(threshold=0), "threshold must be above 0"),
        (lambda: ProgressBarCallback(every_seconds=0), "every_seconds must be above 0"),
    ],
)
def test_mistakes_are_one_sentence(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_rows_are_plain_json(tmp_path):
    train([OptimizerMonitor(), Throughput(), PosteriorCollapse()], Run(tmp_path), vae(), pictures_data())
    lines = [json.loads(line) for line in Run(tmp_path).metrics.read_text().splitlines()]
    assert {line["split"] for line in lines} == {"train", "validation", "optimizer", "resources", "latent"}
    assert all({"step", "epoch", "split"} <= line.keys() for line in lines)
