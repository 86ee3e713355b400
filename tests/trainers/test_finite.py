"""Losses, gradients and weights that are not finite: told, left out, never saved."""

from __future__ import annotations

import math

import pytest
import torch

from tests.trainers.toy_models import CPU, Exploding, Spy, Toy, ToyParts, average, toy, toy_data, train, weights
from vaebench.core import Loss
from vaebench.hardware.device import Hardware
from vaebench.runs.run import Run
from vaebench.trainers import BaseTrainer
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.callbacks.optimizer_monitor import OptimizerMonitor
from vaebench.trainers.finite import NonFiniteError


def test_loss_that_is_not_finite_stops_with_step_and_term(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(NonFiniteError, match=r"step 3: rate is inf; .*trainer.learning_rate"):
        train(Exploding(), run=run)
    assert run.read_status()["status"] == "failed"
    from vaebench.trainers.state import load_weights

    assert all(torch.isfinite(tensor).all() for tensor in load_weights(run.last_weights).values())


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    class Breaking(Callback):
        def on_step_end(self, training):
            if training.step == 7:
                with torch.no_grad():
                    next(training.model.parameters()).fill_(math.nan)
                training.save()

    with pytest.raises(NonFiniteError, match=r"step 7: weight 'encoder.0.weight' is not finite"):
        train(run=Run(tmp_path), callbacks=[Breaking()])


def test_steps_that_are_not_finite_can_be_left_out():
    spy = Spy()
    training = train(Exploding(steps=(3, 5)), callbacks=[spy], non_finite="skip")
    assert torch.equal(spy.weights[2], spy.weights[3])
    assert not torch.equal(spy.weights[3], spy.weights[4])
    assert [row["num_skipped"] for row in training.history if row["split"] == "train"] == [2.0, 2.0]
    assert all(math.isfinite(row["loss"]) for row in training.history)


class Unseen(Toy):
    """Its validation is infinite after some steps, its training is not."""

    def __init__(self, steps):
        super().__init__(plain=True)
        self.steps = steps

    def validation_loss(self, batch, step):
        plain = Toy.loss(self, batch, step)
        rate = plain.terms["rate"] * (math.inf if step in self.steps else 1.0)
        return Loss(plain.total + rate, {**plain.terms, "rate": rate})


def test_validation_that_is_not_finite_stops_with_step_and_term(tmp_path):
    for name, step in (("middle", 5), ("end", 10)):
        run = Run(tmp_path / name)
        with pytest.raises(NonFiniteError, match=rf"step {step}: rate of the validation is inf; .*learning_rate"):
            train(Unseen({step}), run=run)
        assert run.read_status()["status"] == "failed"


def test_validation_that_is_not_finite_is_let_pass_only_where_steps_follow(caplog):
    training = train(Unseen({5}), non_finite="skip")
    assert training.step == 10
    assert "step 5: rate of the validation is inf" in caplog.text
    with pytest.raises(NonFiniteError, match="step 10: rate of the validation is inf"):
        train(Unseen({10}), non_finite="skip")


class Cliff(Toy):
    """Its loss is finite where its gradient is not."""

    def loss(self, batch, step):
        plain = super().loss(batch, step)
        zero = 0 * sum(p.sum() for p in self.parameters())
        return Loss(plain.total + (zero.sqrt() if step == 2 else zero), plain.terms)

    def validation_loss(self, batch, step):
        return Toy.loss(self, batch, step)


def test_gradient_that_is_not_finite_is_told_where_it_is_known():
    with pytest.raises(NonFiniteError, match=r"step 3: gradient of model is nan"):
        train(toy(Cliff), gradient_clip_norm=1.0)
    with pytest.raises(NonFiniteError, match=r"step 4: .* is nan"):
        train(toy(Cliff))
    spy = Spy()
    train(toy(Cliff), callbacks=[spy], non_finite="skip")
    assert torch.equal(spy.weights[2], spy.weights[3])
    assert torch.isfinite(spy.weights[-1]).all()


class Steep(Toy):
    """Its gradient is huge in one step."""

    def loss(self, batch, step):
        plain = super().loss(batch, step)
        return Loss(plain.total * (1e6 if step == 2 else 1.0), plain.terms)


def test_a_step_with_a_huge_gradient_is_left_out_and_counted_and_a_clipped_one_is_not():
    spy, clipped = Spy(), Spy()
    training = train(toy(Steep), callbacks=[spy], skip_gradient_above=1e4, gradient_clip_norm=5.0)
    assert torch.equal(spy.weights[2], spy.weights[3])
    assert not torch.equal(spy.weights[3], spy.weights[4])
    assert [row["num_large_gradients"] for row in training.history if row["split"] == "train"][-1] == 1.0
    assert all(row["loss"] < 1e5 for row in training.history)
    train(toy(Steep), callbacks=[clipped], gradient_clip_norm=5.0)
    assert torch.equal(clipped.weights[2], spy.weights[2])
    assert not torch.equal(clipped.weights[2], clipped.weights[3])


def test_a_gradient_that_is_not_finite_is_left_to_the_policy():
    with pytest.raises(NonFiniteError, match=r"step 3: gradient of model is nan"):
        train(toy(Cliff), skip_gradient_above=1e4)


def test_too_many_steps_left_out_end_the_run():
    with pytest.raises(NonFiniteError, match=r"step 4: rate is inf, and trainer.max_skipped=1 lets no more steps be"):
        train(Exploding(steps=(3, 4)), non_finite="skip", max_skipped=1)


LEFT_OUT = {
    "by the gradient scaler": {},
    "by the policy": {"non_finite": "skip"},
}


@pytest.fixture(params=LEFT_OUT)
def leaving_out(request, monkeypatch):
    """The options under which the third step of a `Cliff` is left out."""
    if request.param == "by the gradient scaler":
        monkeypatch.setattr(Hardware, "scaler", lambda self: torch.amp.GradScaler("cpu", init_scale=2.0**10))
    return LEFT_OUT[request.param]


def test_step_left_out_moves_neither_schedule_nor_average(leaving_out):
    class Rates(Callback):
        def on_step_start(self, training):
            rates.append(training.parts["model"].schedule.learning_rate)

    rates, spy = [], Spy()
    options = {"warmup_steps": 8, "learning_rate": 0.08, "ema_decay": 0.8, "scheduler": "cosine"}
    training = train(toy(Cliff, plain=True), callbacks=[spy, Rates()], **options, **leaving_out)
    assert training.step == 10
    assert rates == pytest.approx([0.01, 0.02, 0.03, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.08])
    assert torch.equal(spy.weights[2], spy.weights[3])
    assert not torch.equal(spy.weights[3], spy.weights[4])
    with training.averaged():
        expected = average([*spy.weights[:3], *spy.weights[4:]], decay=0.8)
        torch.testing.assert_close(weights(training.model), expected)


def test_step_left_out_is_counted_and_has_no_gradient(leaving_out):
    training = train(toy(Cliff), callbacks=[OptimizerMonitor()], **leaving_out)
    counts = [row.get("num_overflows", row.get("num_skipped")) for row in training.history if row["split"] == "train"]
    assert counts == [1.0, 1.0]
    assert all(math.isfinite(row["loss"]) for row in training.history if row["split"] == "train")
    (first, _) = [row for row in training.history if row["split"] == "optimizer"]
    assert 0 < first["gradient_norm"] <= first["largest_gradient_norm"] < math.inf


def test_scaler_leaves_out_each_part_by_itself(monkeypatch):
    class OneCliff(ToyParts):
        def loss(self, batch, step):
            plain = super().loss(batch, step)
            zero = 0 * sum(p.sum() for p in self.decoder.parameters())
            return Loss(plain.total + (zero.sqrt() if step == 2 else zero), plain.terms)

        def validation_loss(self, batch, step):
            return Toy.loss(self, batch, step)

    monkeypatch.setattr(Hardware, "scaler", lambda self: torch.amp.GradScaler("cpu"))
    training = train(toy(OneCliff), parts={"decoder": {"learning_rate": 0.01}}, num_steps=5)
    assert {name: part.schedule.num_updates for name, part in training.parts.items()} == {"encoder": 5, "decoder": 4}


def test_scaler_that_finds_no_scale_ends_the_run(monkeypatch):
    class Wall(Cliff):
        def loss(self, batch, step):
            return super().loss(batch, 2)

    monkeypatch.setattr(Hardware, "scaler", lambda self: torch.amp.GradScaler("cpu", init_scale=2.0**4))
    training = BaseTrainer(num_epochs=20, batch_size=10).start(toy(Wall), toy_data(), hardware=CPU)
    with pytest.raises(NonFiniteError, match=r"step 19: gradient of model is not finite, even of the loss times 6e-05"):
        training.run_to_end()
    assert training.finite.num_overflows == 19
