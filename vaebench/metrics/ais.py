r"""log p(x) of a decoder by annealed importance sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vaebench.core import Batch, at_least_float32
from vaebench.mcmc.annealing import AnnealedEnergy, ScheduleName, anneal, inverse_temperatures, tune
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.messages import check_range, counted
from vaebench.metrics.base import Estimate, Metric, Result, Subject
from vaebench.metrics.bounds import check_on_grid, latents_at_once

KEPT = 3  # times the memory of a decoder that is differentiated
PILOT = 50  # temperatures at which step sizes are tuned; interpolated in between


@dataclass(frozen=True)
class Bounds:
    """What annealing says about some examples.

    Attributes:
        lower: log of the mean weight of forward chains, nats, float64, shape (B,).
        upper: minus the log of the mean weight of reverse chains, shape (B,); None without.
        effective_sample_size: Of the forward weights, in [1, C], shape (B,).
        acceptance_rate: Of the forward chains, shape (B,).
    """

    lower: Tensor
    upper: Tensor | None
    effective_sample_size: Tensor
    acceptance_rate: Tensor


class AIS(Metric):
    r"""log p(x) by annealed importance sampling, with bidirectional bounds (Neal, 2001; Wu et al., 2016).

    Chains go from the prior to the posterior of each example over the densities

    .. math:: f_t(z) = p(z) p(x|z)^{\beta_t}, \quad \log w = \sum_t (\beta_{t+1} - \beta_t) \log p(x|z_t)

    with one transition of Hamiltonian Monte Carlo at each; the log of the mean of w over chains is a lower bound on
    log p(x) in expectation. Unlike the importance bound it needs no q(z|x), and serves every model with a normalised
    p(x|z) and p(z). Step sizes are tuned for each example on a pilot and then frozen.

    How far the bound lies below is measured on examples that the model itself simulates: of these an exact draw from
    the posterior is known, from which reverse chains give an upper bound.

    References:
        Annealed Importance Sampling (Neal, 2001), https://doi.org/10.1023/A:1008923215028
        On the Quantitative Analysis of Decoder-Based Generative Models (Wu et al., 2016),
        https://arxiv.org/abs/1611.04273, for chains, leapfrog steps and the schedule
        Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse et al., 2015),
        https://arxiv.org/abs/1511.02543
    Deviations:
        1,000 temperatures where the paper has 10,000; ais_gap_nats says what that costs. Step sizes do not follow the
        weighted chains' own acceptance.
    Args:
        num_temperatures: T, steps from the prior to the posterior, >= 2.
        num_chains: C, for each example, >= 1.
        num_leapfrog: Leapfrog steps of a transition, on average, >= 1.
        schedule: "sigmoid" (as published, dense at both ends), or "linear".
        num_simulated: Examples that are simulated for the upper bound, >= 0; 0 leaves it out.
        target_acceptance: What the step sizes are tuned for, in (0, 1).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"likelihood", "prior"})

    def __init__(
        self,
        num_temperatures: int = 1000,
        num_chains: int = 16,
        num_leapfrog: int = 10,
        schedule: ScheduleName = "sigmoid",
        num_simulated: int = 100,
        target_acceptance: float = 0.65,
    ) -> None:
        check_range("num_chains", num_chains, at_least=1, whole=True)
        check_range("num_simulated", num_simulated, at_least=0, whole=True)
        check_range("target_acceptance", target_acceptance, above=0, below=1)
        self.betas = inverse_temperatures(num_temperatures, schedule)
        self.kernel = HMCKernel(num_leapfrog)
        self.num_temperatures, self.num_chains, self.num_leapfrog = num_temperatures, num_chains, num_leapfrog
        self.schedule, self.num_simulated = schedule, num_simulated
        self.target_acceptance = target_acceptance

    def why_not(self, subject: Subject) -> str | None:
        """Say why there is no log p(x), or None where there is."""
        reason = super().why_not(subject)
        if reason is None and "codes" in subject.model.capabilities:
            name = type(subject.model).__name__
            return f"the latents of {name} are codes of a finite set, through which no Hamiltonian trajectory leads"
        head = getattr(subject.model, "likelihood_head", None)
        if reason is None and head is not None and head.log_prob_is != "exact":
            return f"log p(x|z) of {type(head).__name__} is estimated anew in each call, and a chain needs one energy"
        return reason

    def measure(self, subject: Subject) -> Result:
        """Return ais_log_likelihood_nats, and with simulated examples ais_lower_nats, ais_upper_nats, ais_gap_nats."""
        model = subject.model
        found = []
        size = max(1, latents_at_once(model) // (KEPT * self.num_chains))
        for batch in subject.batches():
            check_on_grid(model.likelihood_head, batch.x)
            found += [self.bounds(model, batch[rows]) for rows in torch.arange(len(batch)).split(size)]
        lower = torch.cat([part.lower for part in found])
        sizes = torch.cat([part.effective_sample_size for part in found])
        values = {
            "ais_log_likelihood_nats": Estimate.mean(lower, "nats", "higher"),
            "ais_ess": Estimate.mean(sizes, f"of {counted(self.num_chains, 'chain')}", "higher"),
        }
        how = (
            f"{self.num_temperatures} temperatures, {counted(self.num_chains, 'chain')} per example; a lower bound in "
            "expectation"
        )
        acceptance = float(torch.cat([part.acceptance_rate for part in found]).mean())
        if self.num_simulated:
            simulated = [self.bounds(model, *part) for part in self._simulated(model, min(size, subject.batch_size))]
            below = torch.cat([part.lower for part in simulated])
            above = torch.cat([part.upper for part in simulated if part.upper is not None])
            values |= {
                "ais_lower_nats": Estimate.mean(below, "nats"),
                "ais_upper_nats": Estimate.mean(above, "nats"),
                "ais_gap_nats": Estimate.mean(above - below, "nats", "lower"),
            }
            gap = values["ais_gap_nats"].value
            how += (
                f"; on {counted(self.num_simulated, 'simulated example')} upper and lower bound lie {gap:.2g} nats "
                "apart"
            )
            if gap > 1:
                how += ": raise num_temperatures"
        details = {"settings": {name: getattr(self, name) for name in _SETTINGS}, "acceptance_rate": acceptance}
        return Result(values, how, details)

    def bounds(self, model: Any, batch: Batch, z: Tensor | None = None) -> Bounds:
        """Bound log p(x) of each example, from below and, where z is known, from above.

        Args:
            model: Gives prior(y), likelihood(z, y) and draw_from_prior(n, y).
            batch: B examples; x of shape (B, *shape).
            z: Exact draws from p(z|x), shape (B, *latent_shape), or None.
        """
        num_chains, size = self.num_chains, len(batch)
        latent_shape = tuple(model.latent_shape)

        def latents(flat: Tensor) -> Tensor:
            return flat.view(-1, size, *latent_shape)

        def log_prior(flat: Tensor) -> Tensor:
            return at_least_float32(model.prior(batch.y).log_prob(latents(flat))).flatten()

        def log_likelihood(flat: Tensor) -> Tensor:
            return at_least_float32(model.likelihood(latents(flat), batch.y).log_prob(batch.x)).flatten()

        def drawn() -> Tensor:
            y = None if batch.y is None else batch.y.repeat(num_chains, *[1] * (batch.y.ndim - 1))
            return model.draw_from_prior(num_chains * size, y).flatten(1)

        energy = AnnealedEnergy(log_prior, log_likelihood)
        with torch.autocast(batch.x.device.type, enabled=False):  # half precision would spoil acceptance
            steps = tune(
                self.kernel,
                energy,
                drawn(),
                size,
                num_temperatures=min(PILOT, self.num_temperatures),
                schedule=self.schedule,
                target_acceptance=self.target_acceptance,
            )
            log_w, acceptance = anneal(self.kernel, energy, drawn(), steps, self.betas)
            upper = None
            if z is not None:
                start = z.flatten(1).repeat(num_chains, 1)
                back, _ = anneal(self.kernel, energy, start, steps, self.betas[::-1])
                upper = -_log_mean(back.view(num_chains, size)).cpu()
        log_w_CB = log_w.view(num_chains, size)
        sizes = (2 * log_w_CB.logsumexp(0) - (2 * log_w_CB).logsumexp(0)).exp()
        return Bounds(_log_mean(log_w_CB).cpu(), upper, sizes.cpu(), acceptance.cpu())

    def _simulated(self, model: Any, batch_size: int) -> list[tuple[Batch, Tensor]]:
        """Examples that the model draws, with the latents that they come from: exact draws from their posteriors."""
        made = []
        for first in range(0, self.num_simulated, batch_size):
            size = min(batch_size, self.num_simulated - first)
            y = model.draw_labels(size)
            z = model.draw_from_prior(size, y)
            made.append((Batch(model.likelihood(z, y).sample(), y), z))
        return made


_SETTINGS = ("num_temperatures", "num_chains", "num_leapfrog", "schedule", "num_simulated", "target_acceptance")


def _log_mean(log_w_CB: Tensor) -> Tensor:
    return log_w_CB.logsumexp(0) - math.log(len(log_w_CB))
