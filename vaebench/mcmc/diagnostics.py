r"""Did the chains converge, and how much are their draws worth: pure functions of draws, and a verdict in words.

Draws are (T, S, D): T per chain, S chains. Everything is computed in float64 on the host. Definitions are those of
ArviZ and Stan.

References:
    Rank-normalization, folding, and localization: an improved R-hat (Vehtari et al., 2021),
    https://arxiv.org/abs/1903.08008
    Nested R-hat: assessing the convergence of Markov chain Monte Carlo when running many short chains (Margossian et
    al., 2024), https://arxiv.org/abs/2110.13017
    Diagnosing suboptimal cotangent disintegrations in HMC (Betancourt, 2016), https://arxiv.org/abs/1604.00695
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from vaebench.mcmc.chains import Chains
from vaebench.mcmc.ess import MIN_DRAWS, autocovariance, effective_sample_size, split_chains

MOST_AT_ONCE = 2**22  # draws, over chains and dimensions, that are looked at together
MANY_CHAINS = 16  # from here on, nested R-hat is computed too
NUM_GROUPS = 8
R_HAT_LIMIT = 1.01


@dataclass(frozen=True)
class Diagnostics:
    """The report on a run. Lists run over the D dimensions; quantities without a value are None.

    Attributes:
        num_chains: S.
        num_draws: Kept draws per chain, T.
        r_hat: Rank-normalised split R-hat.
        r_hat_limit: What it may be at most: 1.01, or for many short chains what chance alone explains.
        nested_r_hat: The same between groups of many chains; None with fewer than 16 chains.
        ess_bulk: Effective sample size of the centre of the distribution.
        ess_tail: The smaller of the effective sample sizes of its 5 % and 95 % quantiles.
        mean: Posterior means.
        mcse_mean: Their Monte Carlo standard errors.
        standard_deviation: Posterior standard deviations.
        acceptance_rate: Mean acceptance probability; None where nothing but what is not finite is rejected.
        target_acceptance: What it was tuned for, or what suits the kernel; None likewise.
        num_divergences: Transitions after warm-up, over all chains; None where no gradient is followed.
        e_bfmi: Energy Bayesian fraction of missing information, the smallest over chains; None without momenta.
        step_size: As used for the last draw.
        num_gradients: Mean over chains, warm-up included; None where no gradient is followed.
        temperature: T of the last draw.
        if_slow: The kernel's advice where chains mix slowly, the end of a sentence.
        caveat: What the kernel says about any run, or None.
        kernel: Numbers that the kernel keeps about itself, by name.
        remarks: What the kernel says about this run.
    """

    num_chains: int
    num_draws: int
    r_hat: list[float | None]
    r_hat_limit: list[float | None]
    nested_r_hat: list[float | None] | None
    ess_bulk: list[float | None]
    ess_tail: list[float | None]
    mean: list[float]
    mcse_mean: list[float | None]
    standard_deviation: list[float]
    acceptance_rate: float | None
    target_acceptance: float | None
    num_divergences: int | None
    e_bfmi: float | None
    step_size: float
    num_gradients: float | None
    temperature: float = 1.0
    if_slow: str = "raise sampler.num_draws"
    caveat: str | None = None
    kernel: dict[str, float] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def worst(self) -> dict[str, float | None]:
        """The worst value over dimensions of each convergence number; None where any dimension has none."""
        nested = self.nested_r_hat or [None]
        return {
            "r_hat": None if None in self.r_hat else max(self.r_hat),  # type: ignore[type-var]
            "nested_r_hat": None if None in nested else max(nested),  # type: ignore[type-var]
            "ess_bulk": None if None in self.ess_bulk else min(self.ess_bulk),  # type: ignore[type-var]
            "ess_tail": None if None in self.ess_tail else min(self.ess_tail),  # type: ignore[type-var]
        }

    def apart(self) -> float | None:
        """The largest R-hat among the dimensions in which it exceeds its limit, or None where it exceeds it nowhere."""
        pairs = zip(self.r_hat, self.r_hat_limit, strict=True)
        return max((r for r, limit in pairs if r is not None and limit is not None and r > limit), default=None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the worst over dimensions and the verdict."""
        values = {name: value for name, value in asdict(self).items() if name not in ("if_slow", "caveat", "remarks")}
        return {**values, "worst": self.worst(), "verdict": verdict(self)}


def diagnose(chains: Chains) -> Diagnostics:
    """Compute the report on `chains`."""
    num_draws, num_chains, _ = chains.positions.shape
    parts = chains.positions.detach().split(max(1, MOST_AT_ONCE // max(1, num_draws * num_chains)), -1)
    columns = [_of_dimensions(part.double().cpu()) for part in parts]
    found = {name: torch.cat([part[name] for part in columns]) for name in columns[0]}
    kernel, target = chains.kernel, chains.target_acceptance
    bfmi = e_bfmi(chains.total_energy.detach().double().cpu()).amin()[None] if kernel.has_momentum else None
    report = kernel.report({name: mean.cpu() for name, mean in chains.statistics.items()})
    return Diagnostics(
        num_chains=num_chains,
        num_draws=num_draws,
        r_hat=_plain(found["r_hat"]),
        r_hat_limit=_plain(found["r_hat_limit"]),
        nested_r_hat=_plain(found["nested_r_hat"]) if "nested_r_hat" in found else None,
        ess_bulk=_plain(found["ess_bulk"]),
        ess_tail=_plain(found["ess_tail"]),
        mean=found["mean"].tolist(),
        mcse_mean=_plain(found["mcse_mean"]),
        standard_deviation=found["standard_deviation"].tolist(),
        acceptance_rate=None if target is None else float(chains.acceptance_probability.double().mean()),
        target_acceptance=target,
        num_divergences=int(chains.is_divergent.sum()) if kernel.uses_gradients else None,
        e_bfmi=None if bfmi is None else _plain(bfmi)[0],
        step_size=float(chains.parameters.step_size.double().mean()),
        num_gradients=float(chains.num_gradients.double().mean()) if kernel.uses_gradients else None,
        temperature=float(chains.parameters.temperature),
        if_slow=kernel.if_slow,
        caveat=kernel.caveat,
        kernel=report.values,
        remarks=report.sentences,
    )


def _of_dimensions(draws: Tensor) -> dict[str, Tensor]:
    """What is said about each dimension of draws (T, S, D), each of shape (D,)."""
    flat = draws.flatten(0, 1)
    worst, limit = r_hat_and_limit(draws)
    return {
        "r_hat": worst,
        "r_hat_limit": limit,
        **({"nested_r_hat": nested_r_hat(draws)} if draws.shape[1] >= MANY_CHAINS else {}),
        "ess_bulk": ess_bulk(draws),
        "ess_tail": ess_tail(draws),
        "mean": flat.mean(0),
        "mcse_mean": mcse_mean(draws),
        "standard_deviation": flat.std(0, correction=int(len(flat) > 1)),
    }


def verdict(diagnostics: Diagnostics) -> list[str]:
    """Say in plain sentences what is wrong and what to change; an empty list means nothing was found.

    Thresholds: R-hat 1.01 and 400 effective draws (Vehtari et al., 2021), nested R-hat 1.01 (Margossian et al., 2024),
    no divergence after warm-up, E-BFMI 0.3 (Stan), an acceptance rate within 0.15 of its target, or 0.1 .. 1 below it
    where higher is only dearer.
    """
    found = []
    worst = diagnostics.worst()
    apart, nested = diagnostics.apart(), worst["nested_r_hat"]
    if not all(map(math.isfinite, diagnostics.mean)):
        found.append("Some draws are not finite, so nothing can be said about the chains; look at the target's energy.")
    elif worst["r_hat"] is None:
        found.append(
            "The chains did not move, or are too short to judge: R-hat has no value; "
            "lower sampler.step_size or raise sampler.num_draws."
        )
    elif apart is not None or (nested is not None and nested > R_HAT_LIMIT):
        name, value = ("R-hat", apart) if apart is not None else ("nested R-hat", nested)
        limits = [limit for r, limit in zip(diagnostics.r_hat, diagnostics.r_hat_limit, strict=True) if r == apart]
        most = max((limit for limit in limits if limit is not None), default=R_HAT_LIMIT)
        found.append(
            f"The chains disagree: {name} is {value:.3f}, above {most:.3g}, so averages over these draws cannot be "
            "trusted; raise sampler.num_draws, or sampler.num_chains where the distribution has separate modes and "
            "each chain stays in its own."
        )
    if worst["r_hat"] is not None and (worst["ess_bulk"] is None or worst["ess_tail"] is None):
        found.append(
            f"{diagnostics.num_draws} draws per chain are too few to tell how many independent ones they are worth; "
            "raise sampler.num_draws to at least 8."
        )
    for name, value in (("centre", worst["ess_bulk"]), ("tails", worst["ess_tail"])):
        if value is not None and value < 400:
            found.append(
                f"The draws are worth only {value:.0f} independent ones in the {name} of the distribution, below 400; "
                f"{diagnostics.if_slow}."
            )
    if diagnostics.num_divergences:
        total = diagnostics.num_divergences
        found.append(
            f"{total} {'trajectory' if total == 1 else 'trajectories'} diverged after warm-up: parts of the "
            f"distribution are out of reach; set sampler.step_size below {diagnostics.step_size:.2g}."
        )
    rate, target = diagnostics.acceptance_rate, diagnostics.target_acceptance
    if rate is None or target is None:
        pass
    elif rate < target - 0.15:
        found.append(
            f"Only {rate:.1%} of the proposals are accepted, where {target:.0%} is aimed at: the steps are too long; "
            f"set sampler.step_size below {diagnostics.step_size:.2g}, or to null to have it tuned."
        )
    elif rate > min(target + 0.15, 0.98):
        found.append(
            f"{rate:.1%} of the proposals are accepted, where {target:.0%} is aimed at: the steps are shorter than "
            "they need be, which is right but slow; set sampler.step_size above "
            f"{diagnostics.step_size:.2g}, or to null to have it tuned."
        )
    if diagnostics.e_bfmi is not None and diagnostics.e_bfmi < 0.3:
        found.append(
            f"The energy is explored slowly: E-BFMI is {diagnostics.e_bfmi:.2f}, below 0.3; the target has heavy tails "
            f"that momenta do not reach; {diagnostics.if_slow}."
        )
    found += diagnostics.remarks
    if diagnostics.caveat is not None:
        found.append(diagnostics.caveat)
    return found


def r_hat(draws: Tensor) -> Tensor:
    """Rank-normalised split R-hat: the worse of location and scale, shape (D,); nan where it has no value."""
    return r_hat_and_limit(draws)[0]


def r_hat_and_limit(draws: Tensor) -> tuple[Tensor, Tensor]:
    r"""R-hat, and how large it may be, each of shape (D,).

    In equilibrium the mean of a half chain of n draws with autocorrelation time tau varies by tau / n of the variance
    within, so that R-hat is about sqrt(1 + tau / n): above 1.01 for short chains, however many there are. With 16
    chains or more the limit is therefore the larger of 1.01 and sqrt(1 + 3 tau / n), tau being that within chains,
    which does not see how far they are apart. How much the draws are worth is left to the effective sample size and
    to `nested_r_hat`.
    """
    halves = split_chains(draws)
    values, limits = [], []
    for scores in (rank_normalise(halves), rank_normalise((halves - _quantile(halves, 0.5)).abs())):
        values.append(_r_hat(scores))
        limit = torch.full_like(values[-1], R_HAT_LIMIT)
        if draws.shape[1] >= MANY_CHAINS and len(halves) >= MIN_DRAWS:
            tau = len(halves) * halves.shape[1] / effective_sample_size(scores - scores.mean(0))
            limit = torch.fmax(limit, (1 + 3 * tau / len(halves)).sqrt())
        limits.append(limit)
    location_is_worse = (values[0] / limits[0]) >= (values[1] / limits[1])
    bad = ~draws.isfinite().all(0).all(0)
    worst = torch.where(location_is_worse, values[0], values[1]).masked_fill(bad, math.nan)
    return worst, torch.where(location_is_worse, limits[0], limits[1])


def nested_r_hat(draws: Tensor) -> Tensor:
    r"""R-hat between groups of chains, rank-normalised, shape (D,).

    .. math:: \hat R_\nu = \sqrt{1 + \hat B / \hat W}, \quad \hat W = \text{variance of chain means in a group} +
        \text{variance within chains}

    with B the variance of the groups' means. It falls with the draws in a whole group, and so suits many short chains.

    Deviations:
        Chains of a group start at different points: it tells whether enough was drawn, and only `r_hat` sees a chain
        that stays apart, or a trend.
    """
    folded = (draws - _quantile(draws, 0.5)).abs()
    bad = ~draws.isfinite().all(0).all(0)
    worst = torch.maximum(_nested_r_hat(rank_normalise(draws)), _nested_r_hat(rank_normalise(folded)))
    return worst.masked_fill(bad, math.nan)


def _nested_r_hat(draws: Tensor) -> Tensor:
    num_draws, num_chains, num_dims = draws.shape
    size = num_chains // NUM_GROUPS  # chains per group; a remainder is dropped
    if num_draws < 2 or size < 2:
        return draws.new_full((num_dims,), math.nan)
    groups = draws[:, : NUM_GROUPS * size].unflatten(1, (NUM_GROUPS, size))
    means = groups.mean(0)  # (groups, chains, D)
    within = means.var(1) + groups.var(0).mean(1)
    return (1 + means.mean(1).var(0) / within.mean(0)).sqrt()


def ess_bulk(draws: Tensor) -> Tensor:
    """Effective sample size of the rank-normalised draws, shape (D,)."""
    bad = ~draws.isfinite().all(0).all(0)
    return effective_sample_size(rank_normalise(split_chains(draws))).masked_fill(bad, math.nan)


def ess_tail(draws: Tensor) -> Tensor:
    """The smaller of the effective sample sizes of the 5 % and 95 % quantiles, shape (D,)."""
    sizes = []
    for probability in (0.05, 0.95):
        below = split_chains((draws <= _quantile(draws, probability)).double())
        size = effective_sample_size(below)
        # All draws below: a discrete quantity with much mass at its maximum, whose quantile is not uncertain.
        is_full = below.flatten(0, 1).all(0) if len(below) >= MIN_DRAWS else torch.zeros_like(size, dtype=torch.bool)
        sizes.append(torch.where(is_full, float(below[..., 0].numel()), size))
    is_constant = draws.flatten(0, 1).amax(0) == draws.flatten(0, 1).amin(0)
    bad = ~draws.isfinite().all(0).all(0)
    return torch.minimum(*sizes).masked_fill(is_constant | bad, math.nan)


def ess_mean(draws: Tensor) -> Tensor:
    """Effective sample size for the mean, shape (D,)."""
    return effective_sample_size(split_chains(draws))


def mcse_mean(draws: Tensor) -> Tensor:
    """Monte Carlo standard error of the mean over all draws, shape (D,)."""
    flat = draws.flatten(0, 1)
    return flat.std(0, correction=int(len(flat) > 1)) / ess_mean(draws).sqrt()


def e_bfmi(total_energy: Tensor) -> Tensor:
    """Energy Bayesian fraction of missing information of each chain: (T, S) -> (S,)."""
    if len(total_energy) < 2:
        return total_energy.new_full(total_energy.shape[1:], math.nan)
    return total_energy.diff(dim=0).square().mean(0) / total_energy.var(0)


def rank_normalise(draws: Tensor) -> Tensor:
    """Normal scores of the ranks over all chains, ties sharing their mean rank; shape kept."""
    flat = draws.flatten(0, 1)
    ordered, order = flat.sort(0)
    place = torch.arange(1, len(flat) + 1, device=flat.device)[:, None].expand_as(order)
    differs = ordered[1:] != ordered[:-1]
    ends = torch.ones_like(order[:1], dtype=torch.bool)
    first = place.where(torch.cat([ends, differs]), 0).cummax(0).values
    last = place.where(torch.cat([differs, ends]), len(flat)).flip(0).cummin(0).values.flip(0)
    rank = torch.empty_like(flat).scatter_(0, order, (first + last).to(flat) / 2)
    return torch.special.ndtri((rank - 0.375) / (len(flat) + 0.25)).view_as(draws)


def autocorrelation(draws: Tensor) -> Tensor:
    """Autocorrelation at every lag, pooled over chains: (T, S, D) -> (T, D)."""
    covariance = autocovariance(draws).mean(1)
    return covariance / covariance[0]


def _r_hat(draws: Tensor) -> Tensor:
    num_draws = draws.shape[0]
    if num_draws < 2:
        return draws.new_full(draws.shape[2:], math.nan)
    between = num_draws * draws.mean(0).var(0)
    within = draws.var(0).mean(0)
    return ((between / within + num_draws - 1) / num_draws).sqrt()


def _quantile(draws: Tensor, probability: float) -> Tensor:
    """Quantile over draws and chains, linear between order statistics; torch.quantile refuses large inputs."""
    ordered = draws.flatten(0, 1).sort(0).values
    if not len(ordered):
        return draws.new_full(draws.shape[2:], math.nan)
    place = probability * (len(ordered) - 1)
    low = math.floor(place)
    return torch.lerp(ordered[low], ordered[min(low + 1, len(ordered) - 1)], place - low)


def _plain(values: Tensor) -> list[float | None]:
    return [float(v) if math.isfinite(v) else None for v in values.tolist()]
