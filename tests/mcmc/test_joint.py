"""Geweke's joint-distribution test of the kernels (Geweke, 2004).

Parameters and data are drawn together in two ways. The marginal-conditional simulator draws parameters from the prior
and data given these. The successive-conditional simulator goes on from there by turns: a kernel moves the parameters
given the data, and the data are drawn anew given the parameters. A kernel that leaves every posterior invariant keeps
the joint distribution, whatever the data are; every chain has its own. What a kernel carries along belongs to it: a
momentum that persists is N(0, 1), and a slice variable uniform, both apart from everything else.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from tests.mcmc.targets import EXACT_KERNELS, KERNELS, fewer, step_size
from vaebench.energies.base import BaseEnergyFunction
from vaebench.mcmc.kernels.ghmc import GHMCKernel, GHMCState
from vaebench.mcmc.kernels.parallel_tempering import ParallelTemperingKernel, TemperedState
from vaebench.mcmc.state import Draw, Parameters

SHAPE, RATE, STRENGTH = 6.0, 4.0, 1.0  # tau ~ Gamma(6, 4), mu ~ N(0, 1 / tau)
NUM_DATA, NUM_CHAINS, NUM_ROUNDS, LIMIT = 3, 20_000, 3, 4.5
CELL = 256.0  # chain i is at mu + 256 i, which tells the energy whose data count
FACTORS = {"riemannian_hmc": 8.0, "langevin": 3.0, "mclmc": 3.0}  # of the step sizes on the double well


class Posterior(BaseEnergyFunction):
    """-log p(mu, log tau | y), with the data y (S, n) of every chain: normal data with a conjugate prior."""

    num_dims = 2

    def __init__(self, y):
        super().__init__()
        self.y = y

    def forward(self, x):
        i = (x[:, 0].detach() / CELL).round()
        mu, log_tau, y = x[:, 0] - CELL * i, x[:, 1], self.y[i.long()]
        squares = STRENGTH * mu.square() + (y - mu[:, None]).square().sum(-1)
        return log_tau.exp() * (RATE + squares / 2) - (SHAPE + (1 + NUM_DATA) / 2) * log_tau


def draw_tempered(shape, rate, strength, mean, temperature=1.0):
    """Draw mu and log tau from the density with these settings, to the power 1 / T; each of shape (S, ...)."""
    tau = torch.distributions.Gamma((shape + 0.5) / temperature - 0.5, rate / temperature).sample()
    return mean + torch.randn_like(tau) * (temperature / (strength * tau)).sqrt(), tau.log()


def draw_prior(num):
    settings = torch.tensor([SHAPE, RATE, STRENGTH, 0.0], dtype=torch.float64)
    return draw_tempered(*settings[:, None].expand(4, num))


def draw_data(mu, log_tau):
    noise = torch.randn(len(mu), NUM_DATA, dtype=mu.dtype)
    return mu[:, None] + noise * (-log_tau / 2).exp()[:, None]


def statistics(mu, log_tau, y):
    """Functions of parameters and data whose means are compared, shape (N, k)."""
    squares = (y - mu[:, None]).square().sum(-1)
    log_likelihood = NUM_DATA / 2 * log_tau - log_tau.exp() * squares / 2
    mean = y.mean(-1)
    found = (mu, mu.square(), log_tau, log_tau.square(), log_tau.exp(), mu * mean, mean.square(), log_likelihood)
    return torch.stack([*found, mu.square() * log_tau, (mu > 0.3).double()], -1)


def of_what_persists(state, cells):
    """Functions of the momentum and the slice variable with the rest of the state, each of mean 0, shape (N, k)."""
    p, v, energy, squares = state.momentum, state.slice, state.energy, state.momentum.square()
    x = state.position - torch.stack([cells, torch.zeros_like(cells)], -1)
    apart = torch.stack([squares.sum(-1) - 2, energy - energy.mean()], -1)
    found = [squares - 1, p, p * x, p * state.gradient, (v.abs() - 0.5)[:, None] * apart]
    return torch.cat([*found, v[:, None], v.square()[:, None] - 1 / 3], -1)


def with_replicas(move, state, energy, y):
    """The state, its hot replicas exact draws given the data of their chain."""
    total = STRENGTH + NUM_DATA
    mean = y.sum(-1) / total
    rate = RATE + (y.square().sum(-1) - total * mean.square()) / 2
    cells, replicas = CELL * torch.arange(len(y)).double(), [state.position]
    for temperature in move.temperatures(state.energy).tolist()[1:]:
        shape = torch.full_like(mean, SHAPE + NUM_DATA / 2)
        mu, log_tau = draw_tempered(shape, rate, torch.full_like(mean, total), mean, temperature)
        replicas.append(torch.stack([mu + cells, log_tau], -1))
    return replace(state, replicas=move.inner.init(torch.stack(replicas, 1).flatten(0, 1), energy))


def largest_z(kernel):
    """The largest standardised difference of the two simulators' means, and the acceptance rate."""
    move, num = KERNELS[kernel], max(1000, NUM_CHAINS // fewer(kernel, "double_well"))
    if isinstance(move, ParallelTemperingKernel):
        move = replace(move, num_temperatures=2, max_temperature=2.0)  # beyond 10 nothing can be normalised
    size = FACTORS.get(kernel, 2.0) * step_size(kernel, "double_well")
    settings, draw = Parameters(torch.tensor(size).double(), torch.tensor([1.5, 0.5]).double()), Draw()
    mu, log_tau = draw_prior(num)
    y, cells, state, rates = draw_data(mu, log_tau), CELL * torch.arange(num).double(), None, []
    before = statistics(mu, log_tau, y)
    for _ in range(NUM_ROUNDS):
        energy = Posterior(y)
        fresh = move.init(torch.stack([mu + cells, log_tau], -1), energy)
        if isinstance(fresh, TemperedState):
            state = with_replicas(move, fresh, energy, y)
        else:  # what else it carries along stays
            state = fresh if state is None else replace(state, energy=fresh.energy, gradient=fresh.gradient)
        for _ in range(2):
            state, info = move.step(state, energy, settings, draw)
            rates.append(float(info.acceptance_probability.mean()))
        mu, log_tau = state.position[:, 0] - cells, state.position[:, 1]
        y = draw_data(mu, log_tau)
    successive, (mu, log_tau) = statistics(mu, log_tau, y), draw_prior(10 * num)
    marginal = statistics(mu, log_tau, draw_data(mu, log_tau))
    unpaired = (successive.mean(0) - marginal.mean(0)) / (successive.var(0) / num + marginal.var(0) / (10 * num)).sqrt()
    found = [unpaired, standardised(successive - before)]
    if isinstance(state, GHMCState):
        found.append(standardised(of_what_persists(state, cells)))
    return float(torch.cat(found).abs().max()), sum(rates) / len(rates)


def standardised(values):
    """Means in units of their standard errors, (N, k) -> (k,)."""
    return values.mean(0) / (values.std(0) / math.sqrt(len(values)))


@pytest.mark.parametrize("kernel", EXACT_KERNELS)
def test_both_simulators_draw_from_one_joint_distribution(kernel):
    z, acceptance = largest_z(kernel)
    assert z <= LIMIT
    assert 0.3 < acceptance < 0.99  # neither frozen nor unable to show an error


@pytest.mark.parametrize("kernel", [name for name in KERNELS if name not in EXACT_KERNELS])
def test_a_biased_kernel_is_seen(kernel):
    assert largest_z(kernel)[0] > LIMIT


@pytest.mark.parametrize("kernel", ["hmc", "mala", "parallel_tempering"])
def test_a_wrong_acceptance_is_seen(kernel, monkeypatch):
    step_size(kernel, "double_well")  # found with the right kernel
    right = Draw.log_uniform
    monkeypatch.setattr(Draw, "log_uniform", lambda self, like: 0.5 * right(self, like))
    assert largest_z(kernel)[0] > LIMIT


def not_reversed(state, info):
    return replace(state, momentum=torch.where(info.is_accepted[:, None], state.momentum, -state.momentum))


def not_rescaled(state, info):
    return replace(state, slice=torch.where(info.is_accepted, state.slice * (-info.energy_change).exp(), state.slice))


def refreshed_with_too_little(state, info):
    return replace(state, momentum=0.98 * state.momentum)


@pytest.mark.parametrize("fault", [not_reversed, not_rescaled, refreshed_with_too_little])
def test_a_wrong_persistence_is_seen(fault, monkeypatch):
    step_size("ghmc", "double_well")  # found with the right kernel
    right = GHMCKernel.step

    def wrong(*arguments):
        state, info = right(*arguments)
        return fault(state, info), info

    monkeypatch.setattr(GHMCKernel, "step", wrong)
    assert largest_z("ghmc")[0] > LIMIT
