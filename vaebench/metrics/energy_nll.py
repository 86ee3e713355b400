r"""-log p(x) of an energy, its normaliser by annealed importance sampling."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from vaebench.mcmc.annealing import AnnealedEnergy, ScheduleName, anneal, inverse_temperatures, tune
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.messages import check_range, counted
from vaebench.metrics.base import Estimate, Metric, Result, Subject

PILOT = 50  # temperatures at which step sizes are tuned; interpolated in between
MIN_SHARE = 0.05  # warn if the effective sample size is a smaller share of the chains


class EnergyNLL(Metric):
    r"""-log p(x) = E(x) + log Z of an energy-based model, log Z by annealed importance sampling (Neal, 2001).

    Chains go from the Gaussian that the model's network tilts to the model, in T steps,

    .. math:: f_t(u) = N(u; 0, s^2 I) e^{-\beta_t f(u)}, \quad \log Z \approx \log \frac1C \sum_c w_c +
        \tfrac{D}{2} \log 2 \pi s^2 + D \log c

    with the scale c of the standardised coordinates. The estimate of log Z is a lower bound in expectation, and so is
    the number that is reported: too few temperatures flatter the model.

    References:
        Annealed Importance Sampling (Neal, 2001), https://doi.org/10.1023/A:1008923215028
        On the Quantitative Analysis of Deep Belief Networks (Salakhutdinov & Murray, 2008),
        https://doi.org/10.1145/1390156.1390266
    Args:
        num_temperatures: T, >= 2.
        num_chains: C, >= 2.
        num_leapfrog: Leapfrog steps of a transition, on average, >= 1.
        schedule: "sigmoid" or "linear".
    """

    needs: ClassVar[frozenset[str]] = frozenset({"energy"})

    def __init__(
        self,
        num_temperatures: int = 1000,
        num_chains: int = 256,
        num_leapfrog: int = 10,
        schedule: ScheduleName = "sigmoid",
    ) -> None:
        check_range("num_chains", num_chains, at_least=2, whole=True)
        self.betas = inverse_temperatures(num_temperatures, schedule)
        self.kernel = HMCKernel(num_leapfrog)
        self.num_temperatures, self.num_chains = num_temperatures, num_chains
        self.num_leapfrog, self.schedule = num_leapfrog, schedule

    def measure(self, subject: Subject) -> Result:
        """Return energy_nll_nats, log_normalizer_nats with the error of its chains, and energy_ess."""
        log_w = self.log_weights(subject)
        model = subject.model
        energies = torch.cat([model.energy(batch.x).double().cpu() for batch in subject.batches()])
        num_dims = model.energy_function.num_dims
        of_gaussian = num_dims / 2 * math.log(2 * math.pi * model.energy_function.reference_scale**2)
        offset = of_gaussian + num_dims * float(model.scale.double().log())
        log_z = float(log_w.logsumexp(0)) - math.log(len(log_w)) + offset
        size = float((2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).exp())
        weights = (log_w - log_w.max()).exp()
        error = float(weights.std() / weights.mean()) / math.sqrt(len(weights))
        chains = counted(self.num_chains, "chain")
        how = f"log Z from {chains} over {self.num_temperatures} temperatures; a lower bound in expectation"
        if size < MIN_SHARE * len(log_w):
            how += f"; {size:.1f} of them carry the weight: raise num_temperatures"
        if model.data_noise > 0:
            how += f"; of a density learned with noise of {model.data_noise:g} on the data"
        values = {
            "energy_nll_nats": Estimate.mean(energies + log_z, "nats", "lower"),
            "log_normalizer_nats": Estimate(log_z, error, len(log_w), "nats"),
            "energy_ess": Estimate(size, None, len(log_w), f"of {chains}", "higher"),
        }
        settings = {name: getattr(self, name) for name in ("num_temperatures", "num_leapfrog", "schedule")}
        return Result(values, how, {**settings, "num_chains": self.num_chains})

    def log_weights(self, subject: Subject) -> Tensor:
        """Anneal from the Gaussian; log w, float64, on the CPU, shape (C,)."""
        function = subject.model.energy_function
        scale = function.reference_scale

        def log_gaussian(u: Tensor) -> Tensor:
            return -u.square().sum(-1) / (2 * scale**2) - u.shape[1] / 2 * math.log(2 * math.pi * scale**2)

        energy = AnnealedEnergy(log_gaussian, lambda u: -function.tilt(u))
        with torch.autocast(subject.device.type, enabled=False):
            num_pilot = min(PILOT, self.num_temperatures)
            start = function.start(self.num_chains)
            steps = tune(self.kernel, energy, start, 1, num_temperatures=num_pilot, schedule=self.schedule)
            log_w, _ = anneal(self.kernel, energy, function.start(self.num_chains), steps, self.betas)
        return log_w.cpu()
