"""Losses, gradients and weights that are not finite: told, left out, never saved."""

from __future__ import annotations

import math

import pytest
import torch

from tests.trainers.toy_models import Exploding, Spy, Toy, toy, train
from vaebench.core import Loss
from vaebench.run import Run
from vaebench.trainers.callbacks.callback import Callback
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


def test_too_many_steps_left_out_end_the_run():
    with pytest.raises(NonFiniteError, match=r"step 4: rate is inf, and trainer.max_skipped=1 steps were left out"):
        train(Exploding(steps=(3, 4)), non_finite="skip", max_skipped=1)
