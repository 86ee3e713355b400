"""Two processes train every model with several losses, and those that couple a batch, to the weights of one."""

import copy
from types import SimpleNamespace

import pytest
import torch

from tests.contracts.test_models import ALL, Prototypes, configuration
from tests.trainers.toy_models import History, Toy, toy, toy_data
from vaebench import factory
from vaebench.data.split import DataSplit
from vaebench.distributions.likelihoods import Gaussian
from vaebench.distributions.posteriors import DiagonalGaussianPosterior
from vaebench.hardware import collective
from vaebench.hardware.device import Hardware
from vaebench.hardware.processes import launch
from vaebench.hardware.random_streams import seed_everything
from vaebench.models.aae import AAE
from vaebench.models.beta_tc_vae import BetaTCVAE
from vaebench.models.beta_vae import BetaVAE
from vaebench.models.beta_vae_with_capacity import BetaVAEWithCapacity
from vaebench.models.dip_vae import DIPVAE
from vaebench.models.factor_vae import FactorVAE
from vaebench.models.info_vae import InfoVAE
from vaebench.models.iwae import IWAE
from vaebench.models.piwae import PIWAE
from vaebench.models.rae_l2 import RAEL2
from vaebench.models.rhvae import RHVAE
from vaebench.models.vae import VAE
from vaebench.models.vae_gan import VAEGAN
from vaebench.models.vamp_vae import VampVAE
from vaebench.networks import MLP
from vaebench.trainers import (
    AdversarialTrainer,
    BaseTrainer,
    ContrastiveDivergenceTrainer,
    CoupledOptimizerAdversarialTrainer,
    CoupledOptimizerTrainer,
)

pytestmark = pytest.mark.slow
SMALL = MLP(hidden_dims=(8,), activation="tanh")
TRAINERS = {
    trainer.name: trainer
    for trainer in (
        AdversarialTrainer,
        BaseTrainer,
        ContrastiveDivergenceTrainer,
        CoupledOptimizerAdversarialTrainer,
        CoupledOptimizerTrainer,
    )
}
CASES = {
    "vae": (VAE, {}, {}),
    "rhvae": (RHVAE, {"metric_network": SMALL}, {}),
    "aae": (AAE, {"discriminator": SMALL, "posterior": DiagonalGaussianPosterior()}, {}),
    "factor_vae": (FactorVAE, {"discriminator": SMALL}, {}),
    "factor_vae in pieces": (FactorVAE, {"discriminator": SMALL}, {"accumulate": 2}),
    "rae_l2": (RAEL2, {}, {}),
    "beta_vae with free bits": (BetaVAE, {"free_bits": 0.3}, {}),
    "beta_vae_with_capacity": (BetaVAEWithCapacity, {"capacity_max": 1.0, "capacity_num_iter": 3, "gamma": 5.0}, {}),
    "beta_tc_vae": (BetaTCVAE, {"estimator": "stratified"}, {}),
    "dip_vae": (DIPVAE, {"kind": "II"}, {}),
    "info_vae": (InfoVAE, {"lambda_mmd": 10.0}, {}),
    "vamp_vae": (VampVAE, {"num_pseudo_inputs": 5}, {}),
    "iwae": (IWAE, {}, {}),
    "piwae": (PIWAE, {"num_estimates": 2, "num_samples": 3}, {}),
    "vae_gan": (VAEGAN, {"discriminator": SMALL}, {}),
}


def train(case, hardware):
    kind, arguments, options = CASES[case]
    torch.manual_seed(2)
    model = kind((6,), likelihood=Gaussian(), latent_dim=3, network=SMALL, **arguments)
    x = torch.randn(32, 6)
    data = SimpleNamespace(train=DataSplit(x[:23]), validation=DataSplit(x[23:]))
    # SGD, because Adam divides by the gradient's size, which turns rounding into steps where a gradient vanishes.
    trainer = TRAINERS[model.trainer](num_epochs=2, batch_size=9, learning_rate=1e-3, optimizer="SGD", **options)
    trainer.train(model, data, callbacks=[history := History()], hardware=hardware, seed=1)
    weights = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    return weights, [row["loss"] for row in history.rows if row["split"] == "validation"]


@pytest.mark.parametrize("case", [name for name in CASES if name != "factor_vae in pieces"])
def test_two_processes_reach_the_weights_of_one(case):
    one = Hardware(device="cpu", threads=1)
    two = Hardware(device="cpu", threads=1, num_devices=2)
    expected, losses = train(case, one)
    got, losses_of_two = launch(two, train, case, two)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    assert losses_of_two == pytest.approx(losses, rel=1e-5)


def test_two_processes_in_pieces_run_to_the_end():
    # The pieces of two processes hold other rows than those of one, and only rows of a piece meet.
    got, losses = launch(
        Hardware(device="cpu", num_devices=2),
        train,
        "factor_vae in pieces",
        Hardware(device="cpu", threads=1, num_devices=2),
    )
    assert torch.isfinite(got).all()
    assert all(loss < 1e3 for loss in losses)


# Every model of conf/model, as a user gets it but for narrow layers


def differing(model):
    """Names of weights and buffers of which a process has others than number 0."""
    found = []
    for name, value in model.state_dict().items():
        first = value.clone()
        torch.distributed.broadcast(first, 0)
        differs = torch.tensor(float(not torch.equal(first, value)))
        torch.distributed.all_reduce(differs, torch.distributed.ReduceOp.MAX)
        if differs:
            found.append(name)
    return found


def train_configured(tree, hardware):
    seed_everything(2)
    data = Prototypes()
    model = factory.model(tree, data)
    trainer = TRAINERS[model.trainer](num_epochs=2, batch_size=50, learning_rate=1e-5, optimizer="SGD")
    trainer.train(model, data, callbacks=[history := History()], hardware=hardware, seed=1)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    return state, history.rows, differing(model) if collective.is_distributed() else []


def smooth(node):
    """At the kink of a ReLU, rounding is a whole step as well."""
    if "hidden_dims" in node:
        node["activation"] = "tanh"
    if "num_blocks" in node and not {"base_channels", "num_timesteps"} & set(node):
        node |= {"activation": "tanh", "num_blocks": 0}  # the blocks have ReLUs of their own
    for value in node.values():
        if isinstance(value, dict):
            smooth(value)


@pytest.mark.parametrize("name", ALL)
def test_two_processes_reach_weights_and_buffers_of_one(name):
    one = Hardware(device="cpu", threads=1)
    two = Hardware(device="cpu", threads=1, num_devices=2)
    tree = copy.deepcopy(configuration(name))
    smooth(tree["model"])
    expected, rows, _ = train_configured(tree, one)
    got, rows_of_two, differences = launch(two, train_configured, tree, two)
    assert differences == []
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(got[key], value, rtol=1e-5, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}")
    for row, other in zip(rows, rows_of_two, strict=True):
        assert row.pop("split") == other.pop("split")
        assert row == pytest.approx(other, rel=1e-4, abs=1e-4)


class Codes(Toy):
    """Averages its codes over steps, by its own rows or by those of all processes."""

    forgets = False

    def __init__(self):
        super().__init__(plain=True)
        self.register_buffer("codes", torch.zeros(4))

    def after_step(self, batch):
        z = self.encoder(batch.x)
        self.codes.lerp_((z if self.forgets else collective.gather(z)).mean(0), 0.1)


class ForgetfulCodes(Codes):
    forgets = True


def train_codes(kind, hardware):
    model = toy(kind)
    BaseTrainer(num_epochs=1, batch_size=10).train(model, toy_data(), hardware=hardware)
    return differing(model), model.codes.clone()


def test_codes_that_differ_between_processes_are_seen():
    two = Hardware(device="cpu", threads=1, num_devices=2)
    differences, codes = launch(two, train_codes, Codes, two)
    assert differences == []
    alone = toy(Codes)
    BaseTrainer(num_epochs=1, batch_size=10).train(alone, toy_data(), hardware=Hardware(device="cpu", threads=1))
    torch.testing.assert_close(codes, alone.codes)
    assert launch(two, train_codes, ForgetfulCodes, two)[0] == ["codes"]
