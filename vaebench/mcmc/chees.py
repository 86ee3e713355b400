"""ChEES: a warm-up that finds the trajectory length after which squared distances have changed most."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaebench.mcmc.adaptation import Adaptation, DualAveraging, WarmUp

if TYPE_CHECKING:
    from vaebench.mcmc.state import Info, Parameters, State

LEARNING_RATE, BETA = 0.025, 0.95  # for Adam without a first moment
MAX_CHANGE = 0.35  # largest change of log T per transition
MAX_STEPS = 1000


class ChEESAdaptation(Adaptation):
    r"""One step size and one trajectory length for all chains (Hoffman, Radul & Sountsov, 2021, algorithm 1).

    The step size comes from dual averaging on the harmonic mean over chains of the acceptance probability. The length T
    follows the gradient of

    .. math:: \mathrm{ChEES} = \tfrac14 E\big[(\|x' - E x'\|^2 - \|x - E x\|^2)^2\big]

    estimated by each chain as :math:`t (\|x'_c\|^2 - \|x_c\|^2) \langle x'_c, v' \rangle`, t being the time that it
    went and v' its velocity at the end, weighed by acceptance probabilities. Adam climbs in log T. What is used after
    warm-up are averages with weights t^-1/2.

    References:
        An adaptive-MCMC scheme for setting trajectory lengths in Hamiltonian Monte Carlo (Hoffman, Radul & Sountsov,
        2021), https://proceedings.mlr.press/v130/hoffman21a.html
    Args:
        parameters: Where to begin, with a length.
        warm_up: How long it is, and the acceptance rate to tune for.
    """

    def __init__(self, parameters: Parameters, warm_up: WarmUp) -> None:
        assert warm_up.target_acceptance is not None
        assert parameters.length is not None
        self._num_warmup, self._t = warm_up.num_transitions, 0
        self._step = DualAveraging(parameters.step_size, warm_up.target_acceptance, kappa=0.5)
        self._log_length = self._log_average = parameters.length.log()
        self._square = torch.zeros_like(self._log_length)
        self._parameters = parameters

    @property
    def parameters(self) -> Parameters:
        """What all chains use."""
        return self._parameters

    def update(self, state: State, info: Info) -> None:
        """Learn from one transition."""
        if self._t >= self._num_warmup:
            return
        self._t += 1
        rates = info.acceptance_probability
        self._step.update(1 / (1 / rates.clamp(min=1e-20)).mean())
        gradient = chees_gradient(info, self._parameters.inverse_mass_matrix)
        self._square = BETA * self._square + (1 - BETA) * gradient.square()
        root = (self._square / (1 - BETA**self._t)).sqrt()
        change = LEARNING_RATE * (gradient / root.clamp(min=torch.finfo(root.dtype).tiny))
        self._log_length = self._log_length + change.clamp(-MAX_CHANGE, MAX_CHANGE)
        log_step = self._step.step_size.log()
        self._log_length = self._log_length.clamp(log_step, log_step + torch.log(log_step.new_tensor(MAX_STEPS)))
        weight = self._t**-0.5
        self._log_average = weight * self._log_length + (1 - weight) * self._log_average
        step_size, length = self._step.step_size, self._log_length.exp()
        if self._t == self._num_warmup:
            step_size, length = self._step.average, self._log_average.exp()
        self._parameters = replace(self._parameters, step_size=step_size, length=length)


def chees_gradient(info: Info, inverse_mass_matrix: Tensor) -> Tensor:
    """Estimate the derivative of the criterion by log T, up to a positive factor, from one transition; a scalar.

    Positions are measured in the units of the mass matrix. Chains whose proposal is not finite have no weight.
    """
    scale = inverse_mass_matrix.sqrt()
    weights = info.acceptance_probability.unsqueeze(-1)
    is_used = weights > 0
    start = info.start / scale  # type: ignore[attr-defined]
    end = (info.end / scale).where(is_used, 0.0)  # type: ignore[attr-defined]
    velocity = (info.end_momentum * scale).where(is_used, 0.0)  # type: ignore[attr-defined]
    total = weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
    start = start - start.mean(0)
    end = (end - (weights * end).sum(0) / total).where(is_used, 0.0)
    change = end.square().sum(-1) - start.square().sum(-1)
    speed = (end * velocity).sum(-1)
    return (weights.squeeze(-1) * info.time * change * speed).sum() / total  # type: ignore[attr-defined]
