"""Two processes and one compute the same."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from tests.trainers.test_resume import contents
from tests.trainers.toy_models import History, Toy, ToyAdversarial, ToyBatchCoupled, ToyCoupled, toy_data
from vaebench.data.digits import Digits
from vaebench.hardware import collective
from vaebench.hardware.device import Hardware, cores
from vaebench.hardware.processes import launch
from vaebench.hardware.signals import Interrupted
from vaebench.models.factor_vae import FactorVAE
from vaebench.models.rae_l2 import RAEL2
from vaebench.models.rhvae import RHVAE
from vaebench.models.vae import VAE
from vaebench.networks import MLP
from vaebench.runs.run import Run
from vaebench.trainers import AdversarialTrainer, BaseTrainer, CoupledOptimizerTrainer
from vaebench.trainers.callbacks.callback import Callback

pytestmark = [pytest.mark.slow, pytest.mark.skipif(cores() < 2, reason="two processes need two cores")]
CASES = {
    "base": (Toy, BaseTrainer, {"ema_decay": 0.9, "patience": 9}),
    "accumulate": (ToyBatchCoupled, BaseTrainer, {"accumulate": 3}),
    "batch-coupled": (ToyBatchCoupled, BaseTrainer, {"gradient_clip_norm": 0.5, "keep_best": "rate"}),
    "adversarial": (ToyAdversarial, AdversarialTrainer, {}),
    "coupled": (ToyCoupled, CoupledOptimizerTrainer, {}),
}


def train(case, path, hardware, num_epochs=3, plain=True):
    model_class, trainer_class, options = CASES[case]
    torch.manual_seed(collective.rank())  # process 0's first weights are everyone's
    model = model_class(plain=plain)
    trainer = trainer_class(num_epochs=num_epochs, batch_size=9, learning_rate=0.01, **options)
    trainer.train(model, toy_data(), run=Run(path), callbacks=[rows := History()], hardware=hardware, seed=1)
    weights = torch.cat([value.reshape(-1) for value in model.state_dict().values()])
    if collective.is_distributed():
        others = [torch.empty_like(weights) for _ in range(collective.world_size())]
        torch.distributed.all_gather(others, weights)
        assert all(torch.equal(other, weights) for other in others)
    return weights, rows.rows


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(case, tmp_path):
    one = Hardware(device="cpu", threads=1)
    two = Hardware(device="cpu", threads=1, num_devices=2)
    expected, rows = train(case, tmp_path / "one", one)
    got, rows_of_two = launch(two, train, case, tmp_path / "two", two)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    for row, other in zip(rows, rows_of_two, strict=True):
        assert row.pop("split") == other.pop("split")
        assert row == pytest.approx(other, rel=1e-5)
    assert contents(tmp_path / "one").keys() == contents(tmp_path / "two").keys()


@pytest.mark.parametrize("plain", [True, False])  # not plain: with batch normalisation and dropout
def test_two_processes_continue_what_two_began(plain, tmp_path):
    two = Hardware(device="cpu", threads=1, num_devices=2)
    launch(two, train, "base", tmp_path / "whole", two, 3, plain)
    launch(two, train, "base", tmp_path / "parted", two, 1, plain)
    launch(two, train, "base", tmp_path / "parted", two, 3, plain)
    assert contents(tmp_path / "parted") == contents(tmp_path / "whole")


class Signal(Callback):
    """Sends a signal to the process that writes."""

    def on_step_end(self, training):
        if training.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)


def train_through_signal(path, hardware):
    torch.manual_seed(0)
    trainer = BaseTrainer(num_epochs=2, batch_size=9)
    training = trainer.train(Toy(plain=True), toy_data(), run=Run(path), callbacks=[Signal()], hardware=hardware)
    return training.step


@pytest.mark.parametrize("is_handled", [True, False])
def test_all_processes_go_on_or_leave_after_a_signal(is_handled, tmp_path):
    two = Hardware(device="cpu", threads=1, num_devices=2)
    seen = []
    handler = (lambda *arguments: seen.append(arguments)) if is_handled else signal.SIG_DFL
    former = signal.signal(signal.SIGTERM, handler)
    try:
        if is_handled:
            assert launch(two, train_through_signal, tmp_path, two) == 12
            assert len(seen) == 1
        else:
            with pytest.raises(Interrupted):
                launch(two, train_through_signal, tmp_path, two)
            assert Run(tmp_path).read_status()["status"] == "interrupted"
    finally:
        signal.signal(signal.SIGTERM, former)


def train_models(hardware):
    """The weights, buffers and losses of real models after two epochs."""
    found = {}
    data = Digits(num_examples=240)
    smooth = MLP(hidden_dims=(16,), activation="tanh")  # at the kink of a relu, rounding is a whole step as well
    for kind, trainer_class in MODELS:
        torch.manual_seed(0)
        options = {"metric_network": smooth} if kind is RHVAE else {}
        model = kind(data.shape, likelihood=data.likelihood, latent_dim=2, network=smooth, **options)
        # Adam divides by the size of the gradient: with a small eps the rounding of a vanishing one is a whole step.
        trainer = trainer_class(num_epochs=2, batch_size=50, optimizer_args={"eps": 1e-4})
        trainer.train(model, data, callbacks=[history := History()], hardware=hardware)
        rows = [{key: value for key, value in row.items() if key != "split"} for row in history.rows]
        found[kind.__name__] = ({name: value.clone() for name, value in model.state_dict().items()}, rows)
    return found


MODELS = (
    (VAE, BaseTrainer),
    (RHVAE, BaseTrainer),
    (RAEL2, CoupledOptimizerTrainer),
    (FactorVAE, AdversarialTrainer),
)


def test_two_processes_equal_one_for_real_models():
    one = Hardware(device="cpu", threads=1)
    two = Hardware(device="cpu", threads=1, num_devices=2)
    expected, got = train_models(one), launch(two, train_models, two)
    for kind, _ in MODELS:
        state, rows = expected[kind.__name__]
        other_state, other_rows = got[kind.__name__]
        for name, value in state.items():
            torch.testing.assert_close(other_state[name], value, rtol=1e-6, atol=1e-6, msg=f"{kind.__name__} {name}")
        for row, other in zip(rows, other_rows, strict=True):
            # RHVAE's rate is a difference of numbers as large as the loss.
            assert row == pytest.approx(other, rel=1e-5, abs=1e-5), kind.__name__
