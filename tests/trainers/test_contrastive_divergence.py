"""The trainer of energies: what it steps by, its chains, and that it goes on to the bit."""

from __future__ import annotations

import math
import os
import signal

import pytest
import torch

from tests.trainers.test_resume import At, contents, crash
from vaebench.data.dataset import Dataset
from vaebench.data.two_moons import TwoMoons
from vaebench.hardware.device import Hardware
from vaebench.hardware.signals import Interrupted
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.mcmc.kernels.langevin import LangevinKernel
from vaebench.mcmc.kernels.mala import MALAKernel
from vaebench.models.denoising_score_matching import DenoisingScoreMatching
from vaebench.models.ebm import EBM
from vaebench.models.vae import VAE
from vaebench.networks import MLP
from vaebench.objectives.contrastive_divergence import contrast
from vaebench.runs.run import Run
from vaebench.trainers import BaseTrainer, ContrastiveDivergenceTrainer
from vaebench.trainers.callbacks.checkpoint import Checkpoint
from vaebench.trainers.state import load_state, save_state

CPU = Hardware(device="cpu", threads=1)
SMALL = MLP(hidden_dims=(8,), activation="silu")
OPTIONS = {"num_epochs": 3, "batch_size": 10, "k_steps": 2, "buffer_size": 40}


def points(n=50) -> Dataset:
    return Dataset.from_tensors(torch.randn(n, 2, generator=torch.Generator().manual_seed(0)))


def model():
    torch.manual_seed(3)
    return EBM((2,), network=SMALL)


def train(path=None, callbacks=(), **options):
    run = None if path is None else Run(path)
    trainer = ContrastiveDivergenceTrainer(**{**OPTIONS, **options})
    watchers = [Checkpoint(every_seconds=0), *callbacks]  # no pictures
    return trainer.train(model(), points(), run=run, callbacks=watchers, default_callbacks=False, hardware=CPU, seed=5)


@pytest.mark.parametrize(
    "options", [{}, {"kernel": LangevinKernel(), "step_size": 0.03}, {"persistent": False, "kernel": MALAKernel()}]
)
@pytest.mark.parametrize("step", [2, 7])  # 4 steps an epoch: in the middle of one
def test_an_interrupted_run_continues_to_the_same_bytes(options, step, tmp_path):
    train(tmp_path / "whole", **options)
    with pytest.raises(Interrupted):
        train(tmp_path / "parted", [At(step, lambda: os.kill(os.getpid(), signal.SIGTERM))], **options)
    torch.manual_seed(99)
    train(tmp_path / "parted", **options)
    assert contents(tmp_path / "parted") == contents(tmp_path / "whole")


def test_a_crashed_run_repeats_from_its_checkpoint(tmp_path):
    train(tmp_path / "whole")
    with pytest.raises(RuntimeError):
        train(tmp_path / "parted", [At(6, crash)])
    train(tmp_path / "parted")
    assert contents(tmp_path / "parted") == contents(tmp_path / "whole")


def test_a_checkpoint_without_its_chains_is_refused(tmp_path):
    train(tmp_path, num_epochs=1)
    state = Run(tmp_path).last_state
    tree = load_state(state)
    assert tree["carried"]["chains"].shape == (40, 2)
    save_state(state, {**tree, "carried": {}})
    with pytest.raises(ValueError, match=r"does not fit this training: carried\.chains"):
        train(tmp_path)
    save_state(state, tree)
    with pytest.raises(ValueError, match=r"trainer\.kernel was MALAKernel\(\) and is HMCKernel"):
        train(tmp_path, kernel=HMCKernel(2))
    with pytest.raises(ValueError, match=r"trainer\.buffer_size was 40 and is 41"):
        train(tmp_path, buffer_size=41)


@pytest.mark.parametrize(("shape", "given", "weight"), [((2,), None, 0.1), ((1, 4, 4), None, 0.001), ((2,), 0.3, 0.3)])
def test_squared_energies_weigh_less_for_pictures(shape, given, weight):
    options = {} if given is None else {"energy_reg_weight": given}
    trainer = ContrastiveDivergenceTrainer(**OPTIONS, **options)
    built = EBM(shape, network=SMALL)
    data = Dataset.from_tensors(torch.rand(20, *shape))
    training = trainer.start(built, data, hardware=CPU, default_callbacks=False)
    built.before_training(training.train)
    batch = training.train.batch(torch.arange(10))
    torch.manual_seed(1)
    found = trainer.eval_step(training, batch)
    torch.manual_seed(1)
    x, chains, _ = trainer._drawn(training, batch)
    expected = contrast(built.energy_function, x, chains.state.position, weight)
    torch.testing.assert_close(found.total, expected.total)


def test_a_step_follows_the_contrast_between_the_batch_and_its_chains():
    """One step by hand: the same chains, moved by the same noise, and plain gradient descent."""
    trainer = ContrastiveDivergenceTrainer(**OPTIONS, optimizer="SGD", learning_rate=0.1, energy_reg_weight=0.05)
    built = model()
    training = trainer.start(built, points(), hardware=CPU, default_callbacks=False)
    built.before_training(training.train)
    chains, batch = training.carried["chains"].clone(), training.train.batch(torch.arange(10))
    weights = [p.detach().clone() for p in built.parameters()]
    torch.manual_seed(7)
    start, slots = trainer.phase.taken(chains, 10)
    moved = trainer.phase.run(built.energy_function, start, 0.1)
    negatives = moved.state.position
    loss = contrast(built.energy_function, built.standardize(batch.x), negatives, 0.05)
    gradients = torch.autograd.grad(loss.total, list(built.parameters()))
    torch.manual_seed(7)
    values = training.train_step(batch)
    torch.testing.assert_close(values["loss"], loss.total.detach())
    for now, before, gradient in zip(built.parameters(), weights, gradients, strict=True):
        torch.testing.assert_close(now.detach(), before - 0.1 * gradient)
    chains[slots] = negatives
    assert torch.equal(training.carried["chains"], chains)
    rate = float(moved.acceptance_probability.mean())
    assert 0 < rate < 1
    assert float(values["acceptance_rate"]) == pytest.approx(rate)
    assert float(values["step_size"]) == pytest.approx(0.1)
    assert float(training.carried["step_size"]) == pytest.approx(0.1 * math.exp(0.05 * (rate - 0.574)), rel=1e-6)


@pytest.mark.parametrize("persistent", [True, False])
def test_examples_have_noise_and_chains_begin_at_them(persistent, monkeypatch):
    trainer = ContrastiveDivergenceTrainer(**OPTIONS, persistent=persistent)
    built = EBM((2,), network=SMALL, data_noise=0.7)
    training = trainer.start(built, points(), hardware=CPU, default_callbacks=False)
    seen = []
    right = built.energy_function.forward
    monkeypatch.setattr(built.energy_function, "forward", lambda u: seen.append(u.detach()) or right(u))
    batch = training.train.batch(torch.arange(10))
    torch.manual_seed(7)
    training.train_step(batch)
    torch.manual_seed(7)
    expected = built.standardize(batch.x) + 0.7 / built.scale * torch.randn(10, 2)
    assert any(torch.equal(u, expected) for u in seen)
    assert not any(torch.equal(u, built.standardize(batch.x)) for u in seen)


def test_pieces_of_a_step_move_the_chains_of_the_whole():
    ends = []
    for options in ({"batch_size": 20}, {"batch_size": 10, "accumulate": 2}):
        training = train(num_epochs=2, optimizer="SGD", learning_rate=1e-2, **options)
        ends.append(
            (training.carried["chains"], torch.cat([p.detach().flatten() for p in training.model.parameters()]))
        )
    for whole, parted in zip(*ends, strict=True):
        torch.testing.assert_close(whole, parted, rtol=1e-4, atol=1e-5)


def test_validation_leaves_the_chains_where_they_are():
    training = train(num_epochs=1)
    chains = training.carried["chains"].clone()
    values = training.validation_means()
    assert values == training.validation_means()
    assert torch.equal(training.carried["chains"], chains)
    assert {"loss", "energy_data", "energy_model", "contrast"} <= set(values)
    assert training.best is None


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: ContrastiveDivergenceTrainer(buffer_size=0),
            "buffer_size must be a whole number of at least 1; got 0",
        ),
        (
            lambda: ContrastiveDivergenceTrainer(buffer_size=99),
            "buffer_size must be at least the 100 examples of a step",
        ),
        (lambda: ContrastiveDivergenceTrainer(k_steps=0), "k_steps must be"),
        (lambda: ContrastiveDivergenceTrainer(step_size=-0.1), "step_size must be above 0"),
        (
            lambda: ContrastiveDivergenceTrainer(kernel=LangevinKernel()),
            "step_size must be above 0 for kernel=langevin, which has no acceptance rate",
        ),
        (lambda: ContrastiveDivergenceTrainer(new_sample_ratio=2), "new_sample_ratio must be"),
        (lambda: ContrastiveDivergenceTrainer(energy_reg_weight=-1), "energy_reg_weight must be"),
        (lambda: BaseTrainer().train(model(), points()), "EBM needs trainer=contrastive_divergence, got trainer=base"),
        (
            lambda: ContrastiveDivergenceTrainer().train(VAE((2,), likelihood="gaussian", network=SMALL), points()),
            "VAE needs trainer=base, got trainer=contrastive_divergence",
        ),
        (
            lambda: ContrastiveDivergenceTrainer().train(DenoisingScoreMatching((2,), network=SMALL), points()),
            "DenoisingScoreMatching needs trainer=base",
        ),
    ],
)
def test_a_mistake_is_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_two_moons_are_learned():
    """The density that it learns, normalised on a grid, beats the data's own Gaussian."""
    data = TwoMoons(num_points=2000)
    torch.manual_seed(0)
    built = EBM((2,), network=MLP(hidden_dims=(32, 32), activation="silu"))
    trainer = ContrastiveDivergenceTrainer(
        num_steps=400, buffer_size=1000, learning_rate=3e-3, k_steps=5, validate_every=None, keep_best=None
    )
    trainer.train(built, data, hardware=CPU, default_callbacks=False)
    x, grid = data.test.x, torch.linspace(-4, 4, 161)
    with torch.no_grad():
        energies = built.energy_function(torch.cartesian_prod(grid, grid)).double()
        log_z = (-energies).logsumexp(0) + 2 * math.log(0.05)
        log_p = -built.energy(x).double() - log_z - 2 * built.scale.log()
    gaussian = torch.distributions.MultivariateNormal(data.train.x.mean(0), data.train.x.T.cov()).log_prob(x)
    assert float(log_p.mean()) > float(gaussian.mean()) + 0.2
