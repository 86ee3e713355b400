"""The contrast against the gradient of an exact likelihood, and chains that persist."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from vaebench.energies import BaseEnergyFunction, DoubleWellEnergy, GaussianEnergy
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.mcmc.kernels.langevin import LangevinKernel
from vaebench.mcmc.kernels.mala import MALAKernel
from vaebench.objectives import ContrastiveDivergence
from vaebench.objectives.contrastive_divergence import NegativePhase, contrast, returned
from vaebench.samplers import HamiltonianMonteCarlo, LangevinDynamics


class Normal(BaseEnergyFunction):
    """U(x) = sum_d k_d (x_d - m_d)^2 / 2: the likelihood and its gradient are exact."""

    num_dims = 2

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor([0.5, -1.0], dtype=torch.float64))
        self.precision = nn.Parameter(torch.tensor([2.0, 0.6], dtype=torch.float64))

    def forward(self, x):
        return (self.precision * (x - self.mean).square()).sum(-1) / 2

    def nll(self, x):
        return (self(x) - self.precision.log().sum() / 2 + math.log(2 * math.pi)).mean()

    def draw(self, n):
        return (self.mean + torch.randn(n, 2, dtype=torch.float64) / self.precision.sqrt()).detach()


def gradients(loss, energy):
    return torch.cat(torch.autograd.grad(loss, list(energy.parameters())))


def test_with_exact_chains_its_gradient_is_the_likelihoods():
    """An invariant kernel leaves exact draws exact: then contrastive divergence is maximum likelihood."""
    torch.manual_seed(0)
    energy, n = Normal(), 200_000
    x = 0.8 * torch.randn(1000, 2, dtype=torch.float64) + torch.tensor([1.0, 0.0])
    exact = gradients(energy.nll(x), energy)
    for kernel, step_size in ((MALAKernel(), 0.3), (HMCKernel(3), 0.4)):
        phase = NegativePhase(kernel, step_size, k_steps=2)
        negatives = phase.moved(energy, energy.draw(n))
        assert not negatives.requires_grad
        got = gradients(contrast(energy, x, negatives).total, energy)
        centred = negatives - energy.mean
        spread = torch.cat([(energy.precision * centred).std(0), (centred.square() / 2).std(0)]).detach()
        assert ((got - exact).abs() <= 4.5 * spread / math.sqrt(n)).all()


def test_langevin_follows_its_own_biased_density():
    """The negative control: chains of an inexact kernel give another gradient."""
    torch.manual_seed(0)
    energy, n = Normal(), 200_000
    negatives = NegativePhase(LangevinKernel(), 0.4, k_steps=20).moved(energy, energy.draw(n))
    got = gradients(contrast(energy, energy.draw(n), negatives).total, energy)[2]
    assert abs(got) > 0.05  # variance 1 / (k (1 - eta k / 2)) instead of 1 / k


def test_the_penalty_is_that_of_squared_energies():
    energy, x, y = Normal(), torch.randn(7, 2).double(), torch.randn(7, 2).double()
    plain, with_penalty = contrast(energy, x, y), contrast(energy, x, y, 0.3)
    squares = energy(x).square().mean() + energy(y).square().mean()
    torch.testing.assert_close(with_penalty.total, plain.total + 0.3 * squares)
    torch.testing.assert_close(plain.terms["contrast"], plain.terms["energy_data"] - plain.terms["energy_model"])


class Still(LangevinKernel):
    """Moves every chain by one in each dimension, so that one sees where each went."""

    def step(self, state, energy, parameters, draw):
        moved, info = super().step(state, energy, parameters, draw)
        return type(moved)(state.position + 1, moved.energy, moved.gradient, moved.iteration), info


def test_a_chain_returns_to_its_place():
    phase = NegativePhase(Still(), 0.1, k_steps=3, new_sample_ratio=0.0)
    chains = torch.arange(10.0)[:, None].repeat(1, 2) * 100
    begun, moves = chains.clone(), torch.zeros(10)
    for _ in range(20):
        negatives, slots = phase.replayed(GaussianEnergy(), chains, 4)
        assert slots.unique().numel() == 4  # no chain is moved twice
        torch.testing.assert_close(negatives, chains[slots] + 3)
        returned(chains, negatives, slots)
        moves[slots] += 1
    torch.testing.assert_close(chains, begun + 3 * moves[:, None])
    assert (moves > 0).all()  # every place of the buffer has its turn


def test_chains_begin_anew_at_the_stated_rate():
    phase = NegativePhase(Still(), 0.1, k_steps=1, new_sample_ratio=0.2, init_scale=3.0)
    chains = torch.full((50_000, 2), 1000.0)
    negatives, _ = phase.replayed(GaussianEnergy(), chains, len(chains))
    fresh = negatives[negatives[:, 0] < 500] - 1
    assert abs(len(fresh) / 50_000 - 0.2) <= 4.5 * math.sqrt(0.16 / 50_000)
    assert float(fresh.std()) == pytest.approx(3.0, rel=0.05)


# The guide's words


class MLPEnergy(BaseEnergyFunction):
    def __init__(self, input_dim, hidden_dim=64):
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(input_dim, hidden_dim),
            nn.SELU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.SELU(),
            nn.Linear(hidden_dim, 1),
        )

    def forward(self, x):
        return self.network(x).squeeze(-1)


@pytest.mark.parametrize("sampler_class", [LangevinDynamics, HamiltonianMonteCarlo])
def test_the_guides_example_runs(sampler_class):
    energy_fn = MLPEnergy(input_dim=2, hidden_dim=32)
    sampler = sampler_class(energy_function=energy_fn, step_size=0.1, temperature=1e-4)
    loss_fn = ContrastiveDivergence(
        energy_function=energy_fn, sampler=sampler, k_steps=10, persistent=True, buffer_size=1024
    )
    optimizer = torch.optim.Adam(energy_fn.parameters(), lr=1e-3)
    data_batch = torch.randn(100, 2)
    for _ in range(2):
        optimizer.zero_grad()
        loss, negative_samples = loss_fn(data_batch)
        loss.backward()
        optimizer.step()
    assert loss.shape == ()
    assert negative_samples.shape == (100, 2)
    assert not negative_samples.requires_grad
    assert all(p.grad is not None and p.grad.isfinite().all() for p in energy_fn.parameters())


def test_persistent_chains_are_in_the_state():
    def made():
        torch.manual_seed(1)
        energy = MLPEnergy(2)
        return ContrastiveDivergence(energy, LangevinDynamics(energy, step_size=0.1), persistent=True, buffer_size=50)

    x, first = torch.randn(20, 2), made()
    first(x)
    second = made()
    second.load_state_dict(first.state_dict())
    results = []
    for loss_fn in (first, second):
        torch.manual_seed(2)
        results.append(loss_fn(x)[1])
    assert torch.equal(*results)
    assert torch.equal(first.chains, second.chains)


def test_chains_that_do_not_persist_begin_at_the_data():
    energy = DoubleWellEnergy()
    sampler = LangevinDynamics(energy, step_size=1e-12)
    loss_fn = ContrastiveDivergence(energy, sampler, k_steps=1, energy_reg_weight=0.0)
    x = torch.randn(30, 2)
    loss, negatives = loss_fn(x)
    torch.testing.assert_close(negatives, x, atol=1e-4, rtol=0)
    assert abs(float(loss)) < 1e-3
    assert not len(loss_fn.chains)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"k_steps": 0}, "k_steps must be a whole number of at least 1; got 0"),
        ({"buffer_size": 0}, "buffer_size must be a whole number of at least 1; got 0"),
        ({"new_sample_ratio": 1.5}, "new_sample_ratio must be at least 0 and at most 1; got 1.5"),
        ({"energy_reg_weight": -1.0}, "energy_reg_weight must be at least 0"),
        ({"init_scale": 0.0}, "init_scale must be above 0"),
        ({"energy_function": torch.sin}, "derived from BaseEnergyFunction"),
        ({"sampler": HamiltonianMonteCarlo(GaussianEnergy())}, "sampler must have a step_size"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sentence):
    energy = GaussianEnergy()
    given = {"energy_function": energy, "sampler": LangevinDynamics(energy), **arguments}
    with pytest.raises(ValueError, match=sentence):
        ContrastiveDivergence(**given)


def test_a_batch_must_fit_the_buffer():
    energy = GaussianEnergy()
    loss_fn = ContrastiveDivergence(energy, LangevinDynamics(energy), persistent=True, buffer_size=10)
    with pytest.raises(ValueError, match="buffer_size must be at least 11; got 10"):
        loss_fn(torch.randn(11, 2))
    with pytest.raises(ValueError, match=r"expected data of shape \(B, D\)"):
        loss_fn(torch.randn(11))
