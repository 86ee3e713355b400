"""The update rules for several losses, against gradients by hand and a saddle that is known."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tests.trainers.toy_models import DIM, ToyAdversarial, ToyCoupled, ToyCoupledAdversarial, toy_data
from vaebench.core import Batch, Loss, Model
from vaebench.hardware.device import Hardware
from vaebench.trainers import (
    AdversarialTrainer,
    BaseTrainer,
    CoupledOptimizerAdversarialTrainer,
    CoupledOptimizerTrainer,
)

CPU = Hardware(device="cpu", threads=1)


class Saddle(Model):
    """f(x, y) = (x - 1)(y - 2) + (x - 1)^2 / 2 - (y - 2)^2 / 2: x goes down, y goes up, they meet at (1, 2)."""

    shape = (DIM,)

    def __init__(self, trainer):
        super().__init__()
        self.trainer = trainer
        self.x, self.y = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.x.weight, 4.0)
        nn.init.constant_(self.y.weight, -3.0)

    def parts(self):
        return {"x": [self.x], "y": [self.y]}

    def losses(self, batch, step, part=None):
        x, y = self.x.weight.sum() - 1, self.y.weight.sum() - 2
        value = x * y + x.square() / 2 - y.square() / 2
        return {"x": Loss(value), "y": Loss(-value)}

    def loss(self, batch, step):
        return self.losses(batch, step)["x"]

    @property
    def point(self):
        return self.x.weight.item(), self.y.weight.item()


def one_step(trainer_class, model, **options):
    options = {"batch_size": 10, "optimizer": "SGD", "learning_rate": 0.1, **options}
    training = trainer_class(**options).start(model, toy_data(), hardware=CPU)
    training.model.train()
    return training, training.train_step(training.train.batch(torch.arange(10)))


@pytest.mark.parametrize(
    "trainer_class", [AdversarialTrainer, CoupledOptimizerTrainer, CoupledOptimizerAdversarialTrainer]
)
def test_parts_meet_at_the_saddle(trainer_class):
    model = Saddle(trainer_class.name)
    trainer_class(num_steps=200, batch_size=10, optimizer="SGD", learning_rate=0.1, keep_best=None).train(
        model, toy_data(), hardware=CPU
    )
    assert model.point == pytest.approx((1.0, 2.0), abs=1e-4)


def test_parts_in_turn_see_what_the_others_became():
    model = Saddle("adversarial")
    one_step(AdversarialTrainer, model)
    x = 4 - 0.1 * (-5 + 3)  # df/dx = (y - 2) + (x - 1)
    y = -3 + 0.1 * ((x - 1) + 5)  # df/dy = (x - 1) - (y - 2), at the new x
    assert model.point == pytest.approx((x, y))


@pytest.mark.parametrize("trainer_class", [CoupledOptimizerTrainer, CoupledOptimizerAdversarialTrainer])
def test_parts_at_once_see_what_the_others_were(trainer_class):
    model = Saddle(trainer_class.name)
    one_step(trainer_class, model)
    assert model.point == pytest.approx((4 - 0.1 * (-5 + 3), -3 + 0.1 * (3 + 5)))


def test_critic_takes_its_steps_alone():
    model = Saddle("adversarial")
    one_step(AdversarialTrainer, model, num_critic_steps=3)
    x, y = 4.2, -3.0
    for _ in range(3):
        y += 0.1 * ((x - 1) - (y - 2))
    assert model.point == pytest.approx((x, y))
    both = Saddle("coupled_adversarial")
    one_step(CoupledOptimizerAdversarialTrainer, both, num_critic_steps=3)
    y = -3 + 0.1 * 8
    for _ in range(2):
        y += 0.1 * ((x - 1) - (y - 2))
    assert both.point == pytest.approx((x, y))


@pytest.mark.parametrize(
    ("model_class", "trainer_class"),
    [
        (ToyCoupled, CoupledOptimizerTrainer),
        (ToyAdversarial, AdversarialTrainer),
        (ToyCoupledAdversarial, CoupledOptimizerAdversarialTrainer),
    ],
)
def test_each_part_follows_its_own_loss_only(model_class, trainer_class):
    torch.manual_seed(0)
    model = model_class(plain=True)
    before = copy.deepcopy(model)
    training = trainer_class(batch_size=10, optimizer="SGD", learning_rate=0.1).start(model, toy_data(), hardware=CPU)
    state = torch.get_rng_state()
    batch = training.train.batch(torch.arange(10))
    training.train_step(batch)
    torch.set_rng_state(state)
    in_turn = trainer_class is AdversarialTrainer
    for name, modules in before.parts().items():
        loss = before.losses(batch, 0, name if in_turn else None)[name].total
        parameters = [p for module in modules for p in module.parameters()]
        gradients = torch.autograd.grad(loss, parameters)
        after = [p for module in model.parts()[name] for p in module.parameters()]
        for p, gradient, moved in zip(parameters, gradients, after, strict=True):
            torch.testing.assert_close(moved.detach(), p.detach() - 0.1 * gradient)
        if in_turn:
            with torch.no_grad():
                for p, moved in zip(parameters, after, strict=True):
                    p.copy_(moved)
        elif name == "encoder":
            torch.set_rng_state(state)  # the one forward pass drew once
        if not in_turn:
            torch.set_rng_state(state)


def test_statistics_of_the_critic_move_in_its_own_pass_only():
    torch.manual_seed(0)
    model = ToyAdversarial()
    training = AdversarialTrainer(batch_size=10).start(model, toy_data(), hardware=CPU)
    model.train()
    batch = training.train.batch(torch.arange(10))
    with torch.no_grad():
        model.critic(model.encoder(batch.x))  # both move in an ordinary pass
    critic, encoder = model.critic[1], model.encoder[1]
    before = int(critic.num_batches_tracked), int(encoder.num_batches_tracked)
    training.train_step(batch)
    # The critic sees two batches in its own pass, real and encoded; the generator's pass through it leaves no trace.
    assert int(critic.num_batches_tracked) - before[0] == 2
    assert int(encoder.num_batches_tracked) - before[1] == 1


def test_rows_name_the_part():
    _, terms = one_step(AdversarialTrainer, ToyAdversarial())
    assert list(terms) == ["autoencoder_loss", "autoencoder_distortion", "discriminator_loss"]


@pytest.mark.parametrize("trainer_class", [AdversarialTrainer, CoupledOptimizerTrainer])
def test_accumulation_equals_the_large_batch(trainer_class):
    model_class = ToyAdversarial if trainer_class is AdversarialTrainer else ToyCoupled
    torch.manual_seed(0)
    large = model_class(plain=True)
    small = copy.deepcopy(large)
    trainer_class(num_epochs=2, batch_size=20).train(large, toy_data(), hardware=CPU)
    trainer_class(num_epochs=2, batch_size=10, accumulate=2).train(small, toy_data(), hardware=CPU)
    for p, q in zip(small.parameters(), large.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)


def test_model_of_one_part_is_refused():
    class Single(Saddle):
        def parts(self):
            return {"model": [self]}

    with pytest.raises(ValueError, match=r"trainer=coupled needs a model of at least 2 parts, got model"):
        CoupledOptimizerTrainer(batch_size=10).start(Single("coupled"), toy_data(), hardware=CPU)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (lambda m: {"x": [m.x], "y": [m.x, m.y]}, "'x.weight' is in 'x' and in 'y'; parts must not share"),
        (lambda m: {"x": [m.x], "y": []}, "no part holds y.weight"),
    ],
)
def test_parts_that_do_not_partition_are_refused(parts, words):
    class Wrong(Saddle):
        def parts(self):
            return parts(self)

    with pytest.raises(ValueError, match=words):
        CoupledOptimizerTrainer(batch_size=10).start(Wrong("coupled"), toy_data(), hardware=CPU)


def test_missing_loss_is_named():
    class Forgetful(Saddle):
        def losses(self, batch, step, part=None):
            return {"x": super().losses(batch, step)["x"]}

    with pytest.raises(ValueError, match=r"losses\(\) gives no loss for the part 'y'"):
        one_step(CoupledOptimizerTrainer, Forgetful("coupled"))


def test_number_of_critic_steps_is_checked():
    for trainer_class in (AdversarialTrainer, CoupledOptimizerAdversarialTrainer):
        with pytest.raises(ValueError, match=r"num_critic_steps must be a whole number of at least 1; got 0"):
            trainer_class(num_critic_steps=0)


def test_base_trainer_refuses_a_model_of_several_losses():
    with pytest.raises(ValueError, match="model Saddle needs trainer=coupled, got trainer=base"):
        BaseTrainer(batch_size=10).train(Saddle("coupled"), toy_data())


def test_batch_without_labels_stays_without():
    from vaebench.trainers.batches import joined

    batches = iter([Batch(torch.zeros(2, 1)), Batch(torch.ones(2, 1)), Batch(torch.ones(1, 1))])
    sizes = [(len(batch), batch.y) for batch in joined(batches, 2)]
    assert sizes == [(4, None), (1, None)]
