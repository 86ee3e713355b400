"""The loop: lengths, validation, averaging, accumulation, clipping, losses that are not finite."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import pytest
import torch

from tests.trainers.toy_models import (
    CPU,
    Exploding,
    Spy,
    Toy,
    ToyBatchCoupled,
    ToyParts,
    average,
    toy,
    toy_data,
    train,
    weights,
)
from vaebench.core import Loss
from vaebench.data.io.source import Source
from vaebench.data.split import DataSplit
from vaebench.distributions.likelihoods import Bernoulli
from vaebench.hardware.device import Hardware
from vaebench.models.vae import VAE
from vaebench.networks import MLP
from vaebench.runs.run import Run
from vaebench.trainers import AdversarialTrainer, BaseTrainer
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.callbacks.ema import EMA
from vaebench.trainers.finite import NonFiniteError


def test_training_learns():
    model = toy(plain=True)
    history = train(model, num_epochs=30).history
    losses = [row["loss"] for row in history if row["split"] == "train"]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(("options", "steps"), [({"num_epochs": 3}, 15), ({"num_steps": 7}, 7), ({"num_steps": 1}, 1)])
def test_length_is_in_epochs_or_steps(options, steps):
    training = train(**options)
    assert training.step == steps
    assert training.history[-1]["split"] == "validation"
    assert training.history[-1]["step"] == steps


def test_validation_comes_every_so_many_epochs_and_at_the_end(tmp_path):
    training = train(num_epochs=5, validate_every=2)
    assert [row["epoch"] for row in training.history if row["split"] == "validation"] == [2, 4, 5]
    never = train(num_epochs=5, validate_every=None, run=Run(tmp_path))
    assert {row["split"] for row in never.history} == {"train"}
    assert not Run(tmp_path).best_weights.exists()


def test_same_seed_same_weights():
    first, second, other = toy(), toy(), toy()
    BaseTrainer(num_epochs=2, batch_size=10).train(first, toy_data(), seed=1, hardware=CPU)
    torch.rand(7)
    BaseTrainer(num_epochs=2, batch_size=10).train(second, toy_data(), seed=1, hardware=CPU)
    BaseTrainer(num_epochs=2, batch_size=10).train(other, toy_data(), seed=2, hardware=CPU)
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))


def test_validation_and_watching_change_nothing(tmp_path):
    plain, watched = toy(), toy()
    train(plain, validate_every=None, keep_best=None)
    train(watched, run=Run(tmp_path), validate_every=1, keep_best="rate")
    assert torch.equal(weights(plain), weights(watched))


def test_train_rows_are_means_over_the_epoch():
    data = toy_data(num_train=25)  # the last batch holds 5 of 10: it must count half

    class Mean(Toy):
        def loss(self, batch, step):
            value = batch.index.float().mean()
            return Loss(value + 0 * super().loss(batch, step).total, {"index": value.detach()})

    training = train(toy(Mean), data, num_epochs=1)
    assert training.history[0]["index"] == pytest.approx(12.0)


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulation_equals_the_large_batch(accumulate):
    large, small = toy(plain=True), toy(plain=True)
    one = train(large, batch_size=6 * accumulate, gradient_clip_norm=0.3)
    many = train(small, batch_size=6, accumulate=accumulate, gradient_clip_norm=0.3)
    assert one.step == many.step
    torch.testing.assert_close(weights(small), weights(large), rtol=0, atol=1e-6)
    assert many.history[0]["loss"] == pytest.approx(one.history[0]["loss"], rel=1e-5)


def test_accumulation_says_where_it_is_not_the_large_batch(caplog):
    train(toy(ToyBatchCoupled), accumulate=2)
    assert "the loss of ToyBatchCoupled couples the examples of a batch" in caplog.text
    assert "a step of 2 batches of 10 is not one of a batch of 20" in caplog.text
    caplog.clear()
    train(toy(ToyBatchCoupled))
    train(accumulate=2)
    assert "couples" not in caplog.text


class Rows(Source):
    """Rows that are read when they are asked for."""

    def __init__(self, x):
        self.x, self.shape, self.dtype = x, tuple(x.shape[1:]), x.dtype

    def __len__(self):
        return len(self.x)

    def read(self, indices):
        return self.x[indices]

    def take(self, indices):
        return Rows(self.x[indices])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_streamed_data_train_the_same(accumulate):
    memory, stream = toy_data(), toy_data()
    stream.train = DataSplit(Rows(memory.train.x))
    assert not stream.train.in_memory
    first, second = toy(), toy()
    train(first, memory, accumulate=accumulate)
    train(second, stream, accumulate=accumulate)
    assert torch.equal(weights(first), weights(second))


@pytest.mark.parametrize("options", [{}, {"gradient_clip_norm": 0.5}, {"accumulate": 2}])
def test_gradient_scaler_changes_nothing_but_the_scale(options, monkeypatch):
    plain, scaled = toy(), toy()
    train(plain, **options)
    monkeypatch.setattr(Hardware, "scaler", lambda self: torch.amp.GradScaler("cpu", init_scale=2.0**10))
    training = train(scaled, **options)
    assert training.scaler is not None
    torch.testing.assert_close(weights(scaled), weights(plain), rtol=1e-5, atol=1e-6)


def test_average_follows_its_recurrence(tmp_path):
    spy, model = Spy(), toy()
    training = train(model, callbacks=[spy], ema_decay=0.45, run=Run(tmp_path))
    expected = average(spy.weights, decay=0.45)  # reached at the seventh of ten steps
    with training.averaged():
        torch.testing.assert_close(weights(model), expected)
    torch.testing.assert_close(weights(model), spy.weights[-1], rtol=0, atol=0)
    saved = training.weights()
    torch.testing.assert_close(torch.cat([saved[name].reshape(-1) for name, _ in model.named_parameters()]), expected)


def test_average_is_what_is_validated():
    model = toy(plain=True)
    training = train(model, ema_decay=0.99)
    with training.averaged():
        expected = copy.deepcopy(model)
    values = training.validate()
    fresh = BaseTrainer(batch_size=10).start(expected, toy_data(), hardware=CPU)
    assert fresh.validate()["loss"] == pytest.approx(values["loss"], rel=1e-6)


def test_average_is_asked_for_once():
    with pytest.raises(ValueError, match=r"trainer.ema_decay and a callback EMA do the same"):
        train(ema_decay=0.9, callbacks=[EMA(0.9)])


def test_clipping_bounds_the_step():
    spy = Spy()
    train(callbacks=[spy], gradient_clip_norm=1e-3, optimizer="SGD", learning_rate=1.0)
    steps = [(after - before).norm() for before, after in zip(spy.weights, spy.weights[1:], strict=False)]
    assert all(step <= 1e-3 * (1 + 1e-4) for step in steps)
    assert all(norm[0] > 1e-3 for norm in spy.norms)


def test_parts_have_options_of_their_own():
    spy, model = Spy(), toy(ToyParts)
    before = copy.deepcopy(model)
    training = train(
        model,
        callbacks=[spy],
        parts={"decoder": {"optimizer": "SGD", "learning_rate": 1e-30}},
        optimizer_args={"weight_decay": 0.1},
    )
    assert type(training.parts["encoder"].optimizer).__name__ == "Adam"
    assert type(training.parts["decoder"].optimizer).__name__ == "SGD"
    assert torch.equal(weights(model.decoder), weights(before.decoder))
    assert not torch.equal(weights(model.encoder), weights(before.encoder))


def test_arguments_belong_to_the_optimizer_that_they_were_written_for():
    training = train(
        toy(ToyParts),
        parts={"decoder": {"optimizer": "SGD"}, "encoder": {"learning_rate": 0.5}},
        optimizer_args={"amsgrad": True},
    )
    encoder, decoder = (training.parts[name].optimizer for name in ("encoder", "decoder"))
    assert encoder.defaults["amsgrad"] is True
    assert (encoder.defaults["lr"], decoder.defaults["lr"]) == (0.5, 0.01)
    assert "amsgrad" not in decoder.defaults


def test_parts_have_schedules_of_their_own():
    parts = {"decoder": {"scheduler": "StepLR", "scheduler_args": {"step_size": 1, "gamma": 0.5}}}
    training = train(toy(ToyParts), num_epochs=3, parts=parts)
    assert training.parts["decoder"].schedule.learning_rate == pytest.approx(0.01 * 0.5**3)
    assert training.parts["encoder"].schedule.learning_rate == 0.01


def test_plateau_follows_the_metric_that_is_kept():
    options = {"factor": 0.1, "patience": 0}
    training = train(num_epochs=4, keep_best="rate", scheduler="ReduceLROnPlateau", scheduler_args=options)
    values = [row["rate"] for row in training.history if row["split"] == "validation"]
    falls, best = 0, math.inf
    for value in values:
        is_better = value < best * (1 - 1e-4)
        falls, best = falls + (not is_better), value if is_better else best
    assert training.parts["model"].schedule.learning_rate == pytest.approx(0.01 * 0.1**falls)


def test_early_stopping_ends_after_patience():
    training = train(num_epochs=50, patience=3, learning_rate=1e-30)
    assert training.epoch == 4
    assert "has not improved" in training.stop_reason


def test_time_ends_the_training(tmp_path):
    training = train(num_epochs=1000, max_minutes=1e-9, run=Run(tmp_path))
    assert training.step == 1
    assert "max_minutes" in Run(tmp_path).read_status()["reason"]


def test_best_weights_are_those_of_the_best_validation(tmp_path):
    class Worsening(Callback):
        def on_epoch_start(self, training):
            if training.epoch == 1:
                self.best = weights(training.model)
                with torch.no_grad():
                    for p in training.model.parameters():
                        p.mul_(100)

    spoiler, model = Worsening(), toy(plain=True)
    training = train(model, num_epochs=3, callbacks=[spoiler], run=Run(tmp_path))
    from vaebench.trainers.state import load_weights

    saved = load_weights(Run(tmp_path).best_weights)
    assert torch.equal(torch.cat([saved[name].reshape(-1) for name, _ in model.named_parameters()]), spoiler.best)
    assert training.best == min(row["loss"] for row in training.history if row["split"] == "validation")


@pytest.mark.parametrize("mode", ["min", "max"])
def test_best_is_the_smallest_or_the_largest(mode):
    training = train(num_epochs=6, keep_best="rate", keep_best_mode=mode)
    values = [row["rate"] for row in training.history if row["split"] == "validation"]
    assert training.best == (min if mode == "min" else max)(values)


@pytest.mark.parametrize(
    ("options", "data", "words"),
    [
        ({"num_epochs": 0}, {}, "num_epochs must be a whole number of at least 1; got 0"),
        (
            {"batch_size": 51},
            {},
            "batch_size=51 is larger than the training split of 50 examples; choose at most 50",
        ),
        ({}, {"num_validation": 0}, "the validation split is empty"),
        ({}, {"num_train": 0}, "the training split is empty"),
        ({"learning_rate": -1}, {}, "trainer.learning_rate must be above 0 and finite; got -1"),
        ({"scheduler_interval": "epochs"}, {}, "scheduler_interval must be one of epoch, step; got 'epochs'"),
        ({"ema_decay": 1.0}, {}, "ema_decay must be at least 0 and below 1"),
        ({"parts": {"encodr": {"learning_rate": 1}}}, {}, "the model has no part 'encodr'"),
        ({"parts": {"model": {"rate": 1}}}, {}, "parts.model takes no 'rate'"),
        ({"patience": 2, "validate_every": None}, {}, "patience needs a metric: set trainer.validate_every"),
        ({"gradient_clip_norm": 0}, {}, "gradient_clip_norm must be above 0 and finite, or null; got 0"),
        ({"num_epochs": 1.5}, {}, "num_epochs must be a whole number"),
        ({"max_minutes": math.inf}, {}, "max_minutes must be above 0 and finite, or null; got inf"),
        (
            {"scheduler": "ReduceLROnPlateau", "validate_every": None},
            {},
            "trainer.validate_every=null never validates; set trainer.validate_every=1",
        ),
        (
            {"parts": {"model": {"scheduler": "ReduceLROnPlateau"}}, "validate_every": None},
            {},
            "^parts.model.scheduler=ReduceLROnPlateau follows a validation metric",
        ),
        ({"max_skipped": -1}, {}, "max_skipped must be a whole number of at least 0; got -1"),
        ({"non_finite": "ignore"}, {}, "non_finite must be one of stop, skip; got 'ignore'"),
    ],
)
def test_mistakes_are_one_sentence(options, data, words):
    with pytest.raises(ValueError, match=words):
        train(data=toy_data(**data), **options)


def test_metric_that_validation_does_not_give_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"trainer.keep_best: validation gives no 'rte'; did you mean 'rate'"):
        BaseTrainer(batch_size=10, keep_best="rte").start(toy(), toy_data(), run=Run(tmp_path), hardware=CPU)
    assert not list(tmp_path.iterdir())  # said before there is anything of a run


def test_model_names_its_trainer():
    with pytest.raises(ValueError, match="model Toy needs trainer=base, got trainer=adversarial"):
        AdversarialTrainer().train(toy(), toy_data())


def test_prediction_is_the_reconstruction():
    torch.manual_seed(0)
    x = torch.rand(25, 1, 4, 4)
    data = SimpleNamespace(name="noise", shape=(1, 4, 4), train=DataSplit(x), validation=DataSplit(x))
    model = VAE((1, 4, 4), likelihood=Bernoulli(), latent_dim=2, network=MLP(hidden_dims=(8,)))
    trainer = BaseTrainer(num_epochs=1, batch_size=10)
    training = trainer.train(model, data, hardware=CPU)
    torch.testing.assert_close(trainer.predict(training, x), model.eval().reconstruct(x, deterministic=True))


def test_steps_by_hand():
    trainer = BaseTrainer(batch_size=10)
    training = trainer.start(toy(), toy_data(), hardware=CPU)
    batch = training.train.batch(torch.arange(10))
    assert set(training.train_step(batch)) == {"loss", "distortion", "rate"}
    assert torch.isfinite(trainer.eval_step(training, batch).total)
    assert training.step == 1


def test_every_hook_is_called_in_order():
    calls = []
    names = [name for name in vars(Callback) if name.startswith("on_") and name != "on_every_rank"]
    methods = {name: lambda self, *rest, name=name: calls.append(name) for name in names}
    train(toy(plain=True), callbacks=[type("Recorder", (Callback,), methods)()], num_epochs=1, batch_size=25)
    step = ["on_step_start", "on_step_end"]
    assert calls == [
        "on_train_start",
        "on_epoch_start",
        *step,
        *step,
        "on_log",
        "on_progress",  # the model reads the split at the end of the epoch
        "on_evaluation_start",
        "on_progress",
        "on_log",
        "on_evaluation_end",
        "on_epoch_end",
        "on_train_end",
    ]


def test_exception_hook_sees_the_error_and_cannot_hide_it(tmp_path):
    seen = []

    class Watching(Callback):
        def on_exception(self, training, error):
            seen.append(type(error))

    class Failing(Callback):
        def on_exception(self, training, error):
            raise OSError("no space for the last words")

    with pytest.raises(NonFiniteError):
        train(Exploding(), callbacks=[Failing(), Watching()], run=Run(tmp_path))
    assert seen == [NonFiniteError]
    assert Run(tmp_path).read_status()["status"] == "failed"


@pytest.mark.parametrize("precision", ["bf16"])
def test_half_precision_stays_close(precision):
    exact, rough = toy(plain=True), toy(plain=True)
    one = train(exact, num_epochs=5)
    other = train(rough, num_epochs=5, hardware=Hardware(device="cpu", threads=1, precision=precision))
    assert other.history[-1]["loss"] == pytest.approx(one.history[-1]["loss"], rel=0.02)
    assert other.history[-1]["loss"] != one.history[-1]["loss"]
