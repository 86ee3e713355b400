"""The eight schools, a hierarchical model, in the non-centred parametrisation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaebench.energies.base import ExactEnergy
from vaebench.energies.exact import draw_on_grid

EFFECTS = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
ERRORS = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)


class EightSchoolsEnergy(ExactEnergy):
    r"""The posterior of x = (mu, log tau, eta) given eight effects y_j with known errors s_j.

    .. math:: y_j \sim N(\mu + \tau \eta_j, s_j^2), \quad \eta_j \sim N(0, 1), \quad \mu \sim N(0, 5^2), \quad
        \tau \sim \text{half-Cauchy}(5)

    Given (mu, tau), the eta are independent Gaussians, and integrating them out leaves y_j ~ N(mu, s_j^2 + tau^2): so
    exact draws only need a grid over two dimensions.

    References:
        Estimation in parallel randomized experiments (Rubin, 1981), https://doi.org/10.3102/10769986006004377, for the
        data; Bayesian Data Analysis (Gelman et al., 2013), chapter 5, http://www.stat.columbia.edu/~gelman/book/, for
        the model.
    """

    num_dims = 10
    effects: Tensor
    errors: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("effects", torch.tensor(EFFECTS))
        self.register_buffer("errors", torch.tensor(ERRORS))

    def forward(self, x: Tensor) -> Tensor:
        """U in nats, shape (B,)."""
        mu, log_tau, eta = x[:, :1], x[:, 1:2], x[:, 2:]
        residuals = (self.effects - mu - log_tau.exp() * eta) / self.errors
        squares = residuals.square().sum(-1) + eta.square().sum(-1)
        return 0.5 * squares + prior_energy(mu.squeeze(-1), log_tau.squeeze(-1))

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U and its gradient in closed form."""
        x = x.detach()
        mu, log_tau, eta = x[:, :1], x[:, 1:2], x[:, 2:]
        tau = log_tau.exp()
        residuals = (self.effects - mu - tau * eta) / self.errors
        pulls = residuals / self.errors
        ratio = (tau / 5).square()
        by_mu = mu / 25 - pulls.sum(-1, keepdim=True)
        by_log_tau = 2 * ratio / (1 + ratio) - 1 - tau * (pulls * eta).sum(-1, keepdim=True)
        squares = residuals.square().sum(-1) + eta.square().sum(-1)
        value = 0.5 * squares + prior_energy(mu.squeeze(-1), log_tau.squeeze(-1))
        return value, torch.cat([by_mu, by_log_tau, eta - tau * pulls], -1)

    def exact_sample(self, num_samples: int) -> Tensor:
        """Draw (mu, log tau) on a grid, then eta given them, float64, shape (N, 10)."""
        both = draw_on_grid(_MARGINAL, (-25.0, 35.0, -14.0, 6.0), num_samples)
        mu, tau = both[:, :1], both[:, 1:].exp()
        effects, errors = self.effects.double(), self.errors.double()
        precision = 1 + (tau / errors).square()
        mean = tau * (effects - mu) / errors.square() / precision
        return torch.cat([both, mean + torch.randn_like(mean) / precision.sqrt()], -1)


def prior_energy(mu: Tensor, log_tau: Tensor) -> Tensor:
    """-log p(mu, log tau) up to a constant, nats, shape kept; the density of log tau has tau as a factor."""
    return 0.5 * (mu / 5).square() + torch.log1p((2 * (log_tau - math.log(5))).exp()) - log_tau


class _Marginal(ExactEnergy):
    """The posterior of (mu, log tau) alone."""

    num_dims = 2

    def forward(self, x: Tensor) -> Tensor:
        effects, errors = (torch.tensor(values, dtype=x.dtype) for values in (EFFECTS, ERRORS))
        variance = errors.square() + (2 * x[:, 1:]).exp()
        terms = (effects - x[:, :1]).square() / variance + variance.log()
        return 0.5 * terms.sum(-1) + prior_energy(x[:, 0], x[:, 1])

    def exact_sample(self, num_samples: int) -> Tensor:
        return draw_on_grid(self, (-25.0, 35.0, -14.0, 6.0), num_samples)


_MARGINAL = _Marginal()
