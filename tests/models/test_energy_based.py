"""What holds for every energy in conf/model, and what each objective finds on a Gaussian."""

from __future__ import annotations

import math

import pytest
import torch

from tests.contracts.test_models import ALL, MODELS, Prototypes, batch_of, configuration, losses, make
from vaebench.core import CAPABILITIES, Batch
from vaebench.data.split import DataSplit
from vaebench.energies.latent.learned import LearnedTarget
from vaebench.energies.learned.network import NetworkEnergy
from vaebench.hardware.device import Hardware
from vaebench.models.denoising_score_matching import DenoisingScoreMatching
from vaebench.models.ebm import EBM
from vaebench.models.energy_based import EnergyBasedModel
from vaebench.models.noise_contrastive_estimation import NoiseContrastiveEstimation
from vaebench.models.score_matching import ScoreMatching
from vaebench.models.sliced_score_matching import SlicedScoreMatching
from vaebench.networks import MLP, Conv

ENERGIES = [name for name in ALL if name not in MODELS]
WITH_A_LOSS = [name for name in ENERGIES if name != "ebm"]
CPU = Hardware(device="cpu", threads=1)
DATA = Prototypes()


def test_the_rest_are_energies():
    assert {"ebm", "score_matching", "noise_contrastive_estimation"} <= set(ENERGIES)
    assert all(isinstance(make(name), EnergyBasedModel) for name in ENERGIES)


@pytest.mark.parametrize("shape", [(1, 5, 4), (6,)], ids=str)
@pytest.mark.parametrize("name", ENERGIES)
def test_an_energy_is_one_number_an_example(name, shape):
    data = Prototypes(shape)
    model, batch = make(name, data), batch_of(data, 7)
    model.before_training(data.train)
    energy = model.energy(batch.x)
    assert energy.shape == (7,)
    assert energy.isfinite().all()
    torch.testing.assert_close(model.energy(batch.x[3:4]), energy[3:4])  # no row sees another
    u = model.standardize(batch.x)
    assert u.shape == (7, *model.latent_shape)
    torch.testing.assert_close(model.decode(u), batch.x)
    torch.testing.assert_close(LearnedTarget().build(model)(u), energy)
    everything = model.standardize(data.train.x)
    assert everything.mean(0).abs().max() < 1e-5
    assert float(everything.square().mean()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ENERGIES)
def test_what_an_energy_lacks_has_a_reason(name):
    model = make(name)
    assert model.capabilities == {"energy"}
    assert all(model.reason_against(other) for other in set(CAPABILITIES) - {"energy"})
    with pytest.raises(ValueError, match="has no rate: an energy of x has no latent, and so no ELBO"):
        model.require("rate")


@pytest.mark.parametrize("name", WITH_A_LOSS)
def test_losses_are_finite_reach_every_weight_and_fall(name):
    model, batch = make(name), batch_of(DATA)
    model.before_training(DATA.train)
    with torch.no_grad():
        first = model.validation_loss(batch, 0)
    assert first.total.shape == ()
    assert all(not term.requires_grad and term.isfinite() for term in first.terms.values())
    gradients = torch.autograd.grad(losses(model, batch)["model"], list(model.parameters()))
    assert all(g.isfinite().all() and g.any() for g in gradients)
    before = losses(model, batch)["model"].item()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        losses(model, batch)["model"].backward()
        optimizer.step()
    assert losses(model, batch)["model"].item() < before


@pytest.mark.parametrize("name", ENERGIES)
def test_same_seed_same_weights_and_saved_is_loaded(name):
    first, second, other = make(name), make(name), make(name, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    first.before_training(DATA.train)
    other.load_state_dict(first.state_dict())
    x = batch_of(DATA).x
    assert torch.equal(first.energy(x), other.energy(x))
    assert configuration(name)["trainer"]["_target_"].endswith("ContrastiveDivergenceTrainer") == (name == "ebm")


# Oracles: an energy of one weight, U(u) = a |u|^2 / 2, beside data of variance 1 (standardised)


class Square(torch.nn.Module):
    """Stands for the network: a number a, as (a - 1 / s^2) |u|^2 / 2, so that the whole energy is a |u|^2 / 2."""

    def __init__(self, scale):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(0.5))
        self.scale = scale

    def forward(self, u):
        return ((self.a - self.scale**-2) * u.flatten(1).square().sum(-1) / 2).unsqueeze(-1)


def gaussian_model(kind, n=8_000, **arguments):
    model = kind((2,), network=MLP(hidden_dims=(4,), activation="silu"), **arguments)
    model.energy_function.trunk = Square(model.energy_function.reference_scale)
    model.energy_function.head = torch.nn.Identity()
    x = 3.0 * torch.randn(n, 2, generator=torch.Generator().manual_seed(0)) + 1
    model.before_training(DataSplit(x))
    return model, x


def fitted(model, x, steps=150):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        model.loss(Batch(x), step).total.backward()
        optimizer.step()
    return float(model.energy_function.trunk.a.detach())


@pytest.mark.parametrize(
    ("kind", "arguments", "expected"),
    [
        (ScoreMatching, {}, 1.0),
        (SlicedScoreMatching, {"num_projections": 2, "projection": "gaussian"}, 1.0),
        (DenoisingScoreMatching, {"noise_scale": 0.5}, 1 / (1 + 0.5**2)),
        (NoiseContrastiveEstimation, {"noise_ratio": 2}, 1.0),
        (ScoreMatching, {"data_noise": 2.0}, 1 / (1 + (2 / 3) ** 2)),  # the data's deviation is 3
        (SlicedScoreMatching, {"data_noise": 2.0}, 1 / (1 + (2 / 3) ** 2)),
        (NoiseContrastiveEstimation, {"data_noise": 2.0}, 1 / (1 + (2 / 3) ** 2)),
    ],
)
def test_each_objective_finds_the_precision_of_a_gaussian(kind, arguments, expected):
    model, x = gaussian_model(kind, **arguments)
    assert fitted(model, x) == pytest.approx(expected, abs=0.06)


def test_noise_contrast_finds_the_normaliser():
    """log Z of exp(-a |u|^2 / 2) in two dimensions is log(2 pi / a); the density integrates to 1 in x."""
    model, x = gaussian_model(NoiseContrastiveEstimation, noise_ratio=2)
    a = fitted(model, x, steps=200)
    assert float(model.log_normalizer.detach()) == pytest.approx(math.log(2 * math.pi / a), abs=0.03)
    expected = torch.distributions.Normal(1.0, 3.0).log_prob(x).sum(-1)
    assert float((model.log_density(x).detach() - expected).abs().mean()) < 0.06


@pytest.mark.parametrize(("shape", "noise"), [((1, 8, 8), 0.015), ((3, 4, 4), 0.015), ((2,), 0.0)])
def test_pictures_are_learned_with_noise(shape, noise):
    assert EBM(shape).data_noise == noise
    assert EBM(shape, data_noise=0.3).data_noise == 0.3
    assert EBM(shape, data_noise=0.0).data_noise == 0
    assert DenoisingScoreMatching(shape).data_noise == 0  # it has a noise of its own


def test_noise_has_the_datas_covariance():
    model = NoiseContrastiveEstimation((2,), network=MLP(hidden_dims=(4,), activation="silu"))
    x = torch.randn(5000, 2) @ torch.tensor([[2.0, 1.5], [0.0, 0.5]])
    model.before_training(DataSplit(x))
    got = model.noise_factor @ model.noise_factor.T
    torch.testing.assert_close(got, model.standardize(x).T.cov(correction=0), rtol=0.02, atol=0.02)
    u = torch.randn(4, 2)
    noise = torch.distributions.MultivariateNormal(torch.zeros(2), scale_tril=model.noise_factor)
    torch.testing.assert_close(model._log_odds(u), -model.energy_function(u) - noise.log_prob(u))


# Mistakes


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: ScoreMatching((2,), network=MLP(activation="relu")),
            "network.activation: score matching needs second",
        ),
        (lambda: SlicedScoreMatching((2,), num_projections=0), "num_projections must be"),
        (lambda: SlicedScoreMatching((2,), projection="sphere"), "projection: unknown name 'sphere'"),
        (lambda: DenoisingScoreMatching((2,), noise_scale=0.0), "noise_scale must be above 0"),
        (lambda: NoiseContrastiveEstimation((2,), noise_ratio=0), "noise_ratio must be"),
        (lambda: EBM((2,), reference_scale=0.0), "reference_scale must be above 0"),
        (lambda: EBM((2,), data_noise=-0.1), "data_noise must be at least 0 and finite, or null"),
        (lambda: EBM((2,), network=Conv()), r"takes images of shape \(C, H, W\)"),
        (lambda: EBM((2,)).before_training(DataSplit(torch.ones(5, 2))), "training examples are all the same"),
    ],
)
def test_a_mistake_is_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


class Normalised:
    """A network with batch normalisation."""

    def encoder(self, shape, context_dim=0, condition="concat"):
        trunk = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4))
        trunk.num_features = 4
        return trunk


def test_an_energy_whose_rows_see_each_other_is_refused():
    with pytest.raises(ValueError, match="network normalises over the batch"):
        NetworkEnergy((2,), Normalised())


def test_an_energy_is_normalisable_whatever_its_weights():
    """Far out the square wins over a network of any slope."""
    energy = NetworkEnergy((2,), MLP(hidden_dims=(16,), activation="silu"))
    with torch.no_grad():
        for p in energy.parameters():
            p.mul_(5)
    direction = torch.nn.functional.normalize(torch.randn(50, 2), dim=1)
    assert (energy(1e4 * direction) > 1e6).all()


def test_many_dimensions_of_exact_score_matching_are_told(caplog):
    for num_dims, is_told in ((256, False), (257, True)):
        ScoreMatching((num_dims,)).before_training(DataSplit(torch.randn(4, num_dims)))
        assert ("a derivative for each of 257 dimensions" in caplog.text) == is_told


def test_a_large_covariance_of_noise_is_told(caplog, monkeypatch):
    monkeypatch.setattr("vaebench.models.noise_contrastive_estimation.MANY", 3)
    caplog.set_level("INFO")
    for num_dims, is_told in ((3, False), (4, True)):
        NoiseContrastiveEstimation((num_dims,)).before_training(DataSplit(torch.randn(20, num_dims)))
        assert ("a covariance of 4 x 4" in caplog.text) == is_told
