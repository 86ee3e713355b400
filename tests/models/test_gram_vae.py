"""The VAE with a Gram loss: its teacher is the average that it says, and nothing but an average."""

import copy
import os
import signal
from types import SimpleNamespace

import pytest
import torch

from tests.trainers.test_resume import At, contents
from vaebench.core import Batch
from vaebench.data.split import DataSplit
from vaebench.hardware.signals import Interrupted
from vaebench.models import VAE, GramVAE
from vaebench.networks import MLP, Conv, UNet
from vaebench.objectives import GramLoss
from vaebench.runs.run import Run
from vaebench.trainers import BaseTrainer

SHAPE = (1, 8, 8)
NETWORK = Conv(channels=[6, 8], hidden_dim=16)


def _model(**arguments):
    torch.manual_seed(0)
    arguments = {"latent_dim": 3, "network": NETWORK, "likelihood": "bernoulli", **arguments}
    return GramVAE(SHAPE, **arguments)


def _batch():
    return Batch(torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1)).round())


def _disturb(model):
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_loss_is_the_vaes_and_the_weighted_gram_loss():
    model, batch = _model(gram_weight=2.5), _batch()
    _disturb(model)
    vae = VAE(SHAPE, latent_dim=3, network=NETWORK, likelihood="bernoulli")
    own = model.state_dict()
    vae.load_state_dict({name: own[name] for name in vae.state_dict()})
    torch.manual_seed(2)
    loss = model.loss(batch, 0)
    torch.manual_seed(2)
    plain = vae.loss(batch, 0).total
    expected = GramLoss()(model.encoder.features(batch.x)["C3"], model.teacher.features(batch.x)["C3"])
    assert expected > 0.001
    torch.testing.assert_close(loss.total, plain + 2.5 * expected)
    torch.testing.assert_close(loss.terms["gram"], expected.detach())
    torch.manual_seed(2)
    torch.testing.assert_close(model.validation_loss(batch, 0).total, plain)  # validation is the ELBO alone


def test_teacher_is_the_moving_average_of_the_encoder():
    model, batch = _model(teacher_decay=0.75), _batch()
    average = {name: value.clone() for name, value in model.encoder.named_parameters()}
    for _ in range(3):
        _disturb(model)
        model.after_step(batch)
        average = {name: 0.75 * average[name] + 0.25 * value for name, value in model.encoder.named_parameters()}
    teacher = dict(model.teacher.named_buffers())
    for name, value in average.items():
        torch.testing.assert_close(teacher[name], value)


def test_teacher_begins_as_the_encoder_that_training_begins_with():
    model = _model()
    _disturb(model)
    model.before_training(None)
    assert model.gram(_batch().x).item() == pytest.approx(0, abs=1e-10)


def test_teacher_is_saved_and_no_parameter():
    model = _model()
    assert not list(model.teacher.parameters())
    assert {f"teacher.{name}" for name, _ in model.encoder.named_parameters()} <= set(model.state_dict())
    _disturb(model)
    model.after_step(_batch())
    other = _model()
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    torch.testing.assert_close(other.gram(_batch().x), model.gram(_batch().x), rtol=0, atol=0)


def test_a_training_that_stopped_goes_on_to_the_same_bytes(tmp_path):
    x = torch.rand(24, *SHAPE, generator=torch.Generator().manual_seed(1)).round()
    data = SimpleNamespace(train=DataSplit(x), validation=DataSplit(x[:6]))

    def train(name, callbacks=()):
        trainer = BaseTrainer(num_epochs=2, batch_size=8)
        trainer.train(_model(teacher_decay=0.5), data, run=Run(tmp_path / name), callbacks=callbacks, seed=5)

    train("whole")
    with pytest.raises(Interrupted):
        train("parted", [At(4, lambda: os.kill(os.getpid(), signal.SIGTERM))])
    train("parted")
    whole, parted = (contents(tmp_path / name / "checkpoints") for name in ("whole", "parted"))
    assert whole.keys() == parted.keys()
    assert [name for name in whole if whole[name] != parted[name]] == []


@pytest.mark.parametrize("img_level", [True, False])
def test_only_over_the_batch_its_examples_are_coupled(img_level):
    model, x = _model(img_level=img_level), _batch().x
    _disturb(model)
    halves = (model.gram(x[:2]) + model.gram(x[2:])) / 2
    assert torch.isclose(model.gram(x), halves).item() is img_level
    assert model.couples_batch is not img_level


def test_any_level_of_a_unet():
    model = _model(network=UNet(base_channels=4), level="C2")
    _disturb(model)
    loss = model.gram(_batch().x)
    loss.backward()
    assert loss > 0
    assert model.encoder.levels["C2"][0].body[2].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"level": "C9"}, "level: the network has C2, C3, F1 and no 'C9'"),
        ({"level": "F1"}, "'F1' has none; it is a vector of 16"),
        ({"network": MLP([8, 8])}, "level: the network has F1, F2 and no 'C3'"),
        ({"gram_weight": -1.0}, "gram_weight must be at least 0"),
        ({"teacher_decay": 1.0}, "teacher_decay must be at least 0 and below 1; got 1"),
        ({"negatives": "no"}, "negatives: unknown name 'no'"),
    ],
)
def test_refuses(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        _model(**arguments)
