"""MEADS: a warm-up for generalised Hamiltonian Monte Carlo that reads everything off many chains."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaebench.mcmc.adaptation import Adaptation, WarmUp

if TYPE_CHECKING:
    from vaebench.mcmc.state import Info, Parameters, State

NUM_FOLDS = 4
MIN_FOLD = 4  # fewest chains in a fold; with fewer than four such folds, all chains form one


class MEADSAdaptation(Adaptation):
    r"""Maximum-eigenvalue adaptation of damping and step size (Hoffman & Sountsov, 2022, algorithm 3).

    In each transition every fold of chains gets its parameters from the chains of the fold before it, so that no chain
    chooses its own: with sigma the standard deviations, and eigenvalues of second moments,

    .. math:: \epsilon = \min\Big(1, \frac{0.5}{\sqrt{\lambda_\max(\sigma \nabla U)}}\Big), \quad
        \tau^{-1} = \max\Big(\frac{1}{\sqrt{\lambda_\max((x - \mu) / \sigma)}}, \frac{1}{t \epsilon}\Big), \quad
        M^{-1} = \sigma^2

    Chains are dealt into new folds once each fold has been the source.

    References:
        Tuning-free generalized Hamiltonian Monte Carlo (Hoffman & Sountsov, 2022),
        https://proceedings.mlr.press/v151/hoffman22a.html
    Deviations:
        All folds move in every transition; in the paper one of them rests. The adaptation ends with the warm-up: its
        parameters are then geometric means over all folds in its second half.
    Args:
        state: Where the chains start.
        parameters: Where to begin.
        warm_up: How long it is.

    Raises:
        ValueError: if there is one chain only.
    """

    def __init__(self, state: State, parameters: Parameters, warm_up: WarmUp) -> None:
        num_chains = len(state.position)
        if num_chains < 2:
            raise ValueError("num_chains must be at least 2 for MEADS, which compares chains; got 1; set step_size")
        self._first, self._num_warmup = parameters, warm_up.num_transitions
        self._num_folds = NUM_FOLDS if num_chains >= NUM_FOLDS * MIN_FOLD else 1
        self._t = 0
        self._sum: Tensor | None = None
        self._frozen: Parameters | None = None
        self._parameters = parameters
        self._learn(state)

    @property
    def parameters(self) -> Parameters:
        """One set for each fold, spread over its chains; a common one after warm-up."""
        return self._parameters if self._frozen is None else self._frozen

    def update(self, state: State, info: Info) -> None:
        """Learn from where the chains are now."""
        if self._frozen is not None:
            return
        self._t += 1
        self._learn(state)
        if self._t == self._num_warmup:
            assert self._sum is not None
            step_size, length, *mass = self._sum.exp()
            self._frozen = replace(
                self._first, step_size=step_size, length=length, inverse_mass_matrix=torch.stack(mass)
            )

    def _learn(self, state: State) -> None:
        num_chains = len(state.position)
        order = torch.randperm(num_chains, generator=torch.Generator().manual_seed(self._t // self._num_folds))
        order = order.to(state.position.device)
        found = []
        folds = order.tensor_split(self._num_folds)
        for rows in folds:
            found.append(fold_parameters(state.position[rows], state.gradient[rows], max(self._t, 1)))
        logs = torch.stack(found).log()  # (folds, 2 + D)
        if self._t > self._num_warmup // 2 or self._t == self._num_warmup:
            weight = 1 / (self._t - self._num_warmup // 2)
            mean = logs.mean(0)
            self._sum = mean if self._sum is None else self._sum + weight * (mean - self._sum)
        for_chain = torch.empty_like(logs[:1].expand(num_chains, -1))
        for rows, values in zip(folds, logs.roll(1, 0), strict=True):
            for_chain[rows] = values.exp()
        self._parameters = replace(
            self._first, step_size=for_chain[:, :1], length=for_chain[:, 1:2], inverse_mass_matrix=for_chain[:, 2:]
        )


def fold_parameters(position: Tensor, gradient: Tensor, t: int) -> Tensor:
    """Step size, time to forget and variances from one fold: (N, D), (N, D) -> (2 + D,)."""
    variance = position.var(0).clamp(min=torch.finfo(position.dtype).tiny ** 0.5)
    sigma = variance.sqrt()
    step_size = (0.5 * largest_eigenvalue(gradient * sigma).rsqrt()).clamp(max=1.0)
    spread = largest_eigenvalue((position - position.mean(0)) / sigma)
    rate = torch.maximum(spread.rsqrt(), 1 / (t * step_size))
    return torch.cat([step_size[None], 1 / rate[None], variance])


def largest_eigenvalue(x: Tensor) -> Tensor:
    r"""Estimate the largest eigenvalue of the second moment E[x x'] from rows of `x`, (N, D) -> a scalar.

    .. math:: \lambda_\max \approx \frac{\mathrm{tr} \, S^2}{\mathrm{tr} \, S}, \quad
        \mathrm{tr} \, S^2 \approx \frac{1}{N (N - 1)} \sum_{i \neq j} (x_i^\top x_j)^2, \quad
        \mathrm{tr} \, S \approx \frac{1}{N} \sum_i |x_i|^2
    """
    n = len(x)
    squares = x.square().sum(-1)
    total = (x @ x.T).square().sum() if n <= x.shape[1] else (x.T @ x).square().sum()
    trace_of_square = (total - squares.square().sum()) / (n * (n - 1))
    return (trace_of_square / squares.mean()).clamp(min=torch.finfo(x.dtype).tiny ** 0.5)
