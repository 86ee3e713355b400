"""Samplers on models whose densities are known in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from vaebench.core import Batch, Draws, Model
from vaebench.distributions.diagonal_gaussian import DiagonalGaussian
from vaebench.energies.analytic.gaussian import GaussianEnergy
from vaebench.energies.latent.aggregate_posterior import AggregatePosteriorTarget, posterior_moments
from vaebench.energies.latent.auto import AutoTarget
from vaebench.energies.latent.manifold import ManifoldTarget
from vaebench.energies.latent.prior import PriorTarget
from vaebench.factory.signatures import parameters
from vaebench.mcmc.chains import Chains, run_chains
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.objectives.riemannian_metric import RiemannianMetric, pack
from vaebench.samplers.base import BaseSampler
from vaebench.samplers.gaussian_mixture import GaussianMixtureSampler
from vaebench.samplers.hmc import HamiltonianMonteCarlo
from vaebench.samplers.kernel_density import KernelDensitySampler
from vaebench.samplers.langevin import LangevinDynamics
from vaebench.samplers.latents import decode, encode, prepare
from vaebench.samplers.mala import MetropolisAdjustedLangevin
from vaebench.samplers.markov_chains import spread
from vaebench.samplers.normal import NormalSampler
from vaebench.samplers.rhvae import RHVAESampler
from vaebench.samplers.stored import content, load

QUICK = {"num_chains": 8, "num_warmup": 150, "num_draws": 400}


class LinearModel(Model):
    """q(z|x) = N(x W, 0.5 I), p(z) = N(0, I): the aggregate posterior over a data set is a known mixture."""

    capabilities = frozenset({"posterior", "prior", "rate"})
    shape = latent_shape = (2,)

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([[1.0, 0.5], [0.0, 0.8]]))

    def posterior(self, x, y=None):
        return DiagonalGaussian(x @ self.weight, torch.full_like(x, math.log(0.5)))

    def prior(self, y=None):
        return DiagonalGaussian(torch.zeros(2), torch.zeros(2))


class CurvedModel(LinearModel):
    """With a metric of three centroids in the plane, close enough that chains cross between them."""

    capabilities = frozenset({"posterior", "prior", "rate", "manifold"})

    @property
    def metric(self):
        centroids = torch.tensor([[0.0, 0.0], [1.0, 0.3], [0.2, 1.2]])
        matrices = torch.tensor([[[1.0, 0.2], [0.2, 0.5]], [[2.0, -0.4], [-0.4, 1.0]], [[0.7, 0.0], [0.0, 0.7]]])
        return RiemannianMetric(centroids, pack(matrices), temperature=1.0, regularization=0.01)


class Examples:
    def __init__(self, num: int) -> None:
        self.x = torch.randn(num, 2)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices):
        return Batch(self.x[indices])


def mixture_moments(model: LinearModel, split: Examples) -> tuple[torch.Tensor, torch.Tensor]:
    means = (split.x @ model.weight).detach().double()
    return means.mean(0), means.T.cov(correction=0) + 0.5 * torch.eye(2, dtype=torch.float64)


def agrees(z: torch.Tensor, mean: torch.Tensor, covariance: torch.Tensor, num_effective: float) -> bool:
    """Mean and covariance within 4.5 standard errors of that many independent draws."""
    z = z.double()
    error = covariance.diagonal().sqrt() / math.sqrt(num_effective)
    centred = z - mean
    products = centred[:, :, None] * centred[:, None, :]
    product_error = products.std(0) / math.sqrt(num_effective)
    return bool(
        ((z.mean(0) - mean).abs() <= 4.5 * error).all()
        and ((products.mean(0) - covariance).abs() <= 4.5 * product_error).all()
    )


def test_normal_has_the_priors_moments():
    zero, one = torch.zeros(2).double(), torch.eye(2).double()
    assert agrees(prepare(NormalSampler(), LinearModel()).sample(20_000).z, zero, one, 20_000)
    assert agrees(prepare(NormalSampler(temperature=0.5), LinearModel()).sample(20_000).z, zero, 0.25 * one, 20_000)


@pytest.mark.parametrize("num_components", [1, 3])
def test_gaussian_mixture_keeps_the_moments_of_the_aggregate_posterior(num_components):
    """Its fit has the moments of the drawn latents; that draw adds its own error, hence the smaller number."""
    model, split = LinearModel(), Examples(4000)
    mean, covariance = mixture_moments(model, split)
    z = prepare(GaussianMixtureSampler(num_components), model, split).sample(20_000).z
    assert agrees(z, mean, covariance, 1 / (1 / 4000 + 1 / 20_000))
    assert not agrees(z, mean, covariance - 0.5 * torch.eye(2), 3000)  # the moments of posterior means


def test_hmc_draws_from_the_aggregate_posterior():
    model, split = LinearModel(), Examples(30)
    sampler = HamiltonianMonteCarlo(AggregatePosteriorTarget(), num_leapfrog=4, **QUICK).setup(model, split)
    z = sampler.sample(3200).z
    report = sampler.diagnostics()
    assert report["verdict"] == []
    mean, covariance = mixture_moments(model, split)
    assert agrees(z, mean, covariance, min(3200, *report["ess_bulk"], *report["ess_tail"]))


@pytest.mark.parametrize(
    "sampler", [RHVAESampler(step_size=None, **QUICK), HamiltonianMonteCarlo(num_leapfrog=6, **QUICK)]
)
def test_chains_on_a_metric_have_the_moments_of_its_volume(sampler):
    model = CurvedModel()
    axis = torch.linspace(-12, 12, 1201, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    weights = torch.exp(ManifoldTarget().build(model).log_density(points.float()).double())
    weights /= weights.sum()
    mean = weights @ points
    covariance = (weights[:, None] * (points - mean)).T @ (points - mean)
    z = sampler.setup(model).sample(3200).z
    report = sampler.diagnostics()
    assert report["num_divergences"] == 0
    assert agrees(z, mean, covariance, min(report["ess_bulk"] + report["ess_tail"]))


@pytest.mark.parametrize("num_samples", [1, 3, 8, 9, 500])
def test_any_number_of_samples(num_samples):
    settings = {"num_chains": 8, "num_warmup": 20, "num_draws": 10}
    for sampler in (
        NormalSampler(),
        GaussianMixtureSampler(2),
        HamiltonianMonteCarlo(PriorTarget(), **settings),
        RHVAESampler(**settings),
    ):
        z = prepare(sampler, CurvedModel(), Examples(50)).sample(num_samples).z
        assert z.shape == (num_samples, 2)
        assert z.dtype == torch.float32
        assert z.isfinite().all()
        assert len(z.unique(dim=0)) > 0.7 * num_samples  # rejections repeat, the plan does not


@pytest.mark.parametrize("num_samples", [3, 20])
def test_diagnostics_see_every_draw_however_few_samples_are_asked(num_samples):
    sampler = HamiltonianMonteCarlo(PriorTarget(), num_chains=4, num_warmup=50, num_draws=100).setup(LinearModel())
    sampler.sample(num_samples)
    assert sampler.diagnostics()["num_draws"] == 100
    assert sampler.diagnostics()["num_chains"] == 4


def test_the_same_seed_gives_the_same_samples():
    for sampler in (
        NormalSampler(),
        GaussianMixtureSampler(2),
        HamiltonianMonteCarlo(num_warmup=20, num_draws=10, num_chains=4),
    ):
        draws = []
        for _ in range(2):
            torch.manual_seed(7)
            draws.append(prepare(sampler, CurvedModel(), Examples(50)).sample(10).z)
        assert torch.equal(*draws)


def test_auto_takes_what_suits_the_model():
    assert AutoTarget().resolve(CurvedModel()) == ManifoldTarget()
    assert AutoTarget().resolve(LinearModel()) == AggregatePosteriorTarget()
    model = LinearModel()
    model.capabilities = frozenset({"prior"})
    assert AutoTarget().resolve(model) == PriorTarget()
    model.capabilities = frozenset()
    assert AutoTarget().resolve(model) is None
    with pytest.raises(ValueError, match="does not serve LinearModel"):
        HamiltonianMonteCarlo().setup(model)


@pytest.mark.parametrize(
    ("sampler", "sentence"),
    [
        (RHVAESampler(), "sampler=rhvae does not serve LinearModel.* no Riemannian metric"),
        (HamiltonianMonteCarlo(ManifoldTarget()), "target=manifold does not serve LinearModel"),
    ],
)
def test_a_model_without_a_metric_is_refused(sampler: BaseSampler, sentence):
    with pytest.raises(ValueError, match=sentence):
        sampler.setup(LinearModel())


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: NormalSampler(temperature=-1), "^temperature"),
        (lambda: NormalSampler(temperature=math.nan), "^temperature"),
        (lambda: GaussianMixtureSampler(0), "^num_components must be"),
        (lambda: HamiltonianMonteCarlo(num_chains=0), "^num_chains must be"),
        (lambda: HamiltonianMonteCarlo(num_warmup=0), "^num_warmup must be"),
        (lambda: HamiltonianMonteCarlo(num_draws=3), "^num_draws must be"),
        (lambda: HamiltonianMonteCarlo(thinning=0), "^thinning must be"),
        (lambda: HamiltonianMonteCarlo(num_leapfrog=0), "^num_leapfrog must be"),
        (lambda: HamiltonianMonteCarlo(jitter=1.5), "^jitter must be"),
        (lambda: HamiltonianMonteCarlo(step_size=0.0), "^step_size must be"),
        (lambda: HamiltonianMonteCarlo(step_size=math.inf), "^step_size must be"),
        (lambda: HamiltonianMonteCarlo(target_acceptance=1.0), "^target_acceptance must be"),
        (lambda: RHVAESampler(step_size=-0.1), "^step_size must be"),
        (lambda: RHVAESampler(num_leapfrog=0), "^num_leapfrog must be"),
        (lambda: prepare(NormalSampler(), LinearModel()).sample(0), "num_samples"),
        (lambda: HamiltonianMonteCarlo(PriorTarget()).setup(LinearModel()).sample(0), "num_samples"),
        (lambda: prepare(GaussianMixtureSampler(10), LinearModel(), Examples(9)), "sampler.num_components=10, got 9"),
        (lambda: prepare(GaussianMixtureSampler(10), LinearModel()), "training split"),
    ],
)
def test_settings_out_of_range_are_named(make, key):
    with pytest.raises(ValueError, match=key):
        make()


def ladder(num_draws: int, num_chains: int) -> Chains:
    """Chains whose states are their time and their number."""
    t = torch.arange(num_draws).double()[:, None].expand(num_draws, num_chains)
    s = torch.arange(num_chains).double().expand(num_draws, num_chains)
    kernel, energy = HMCKernel(), PriorTarget().build(LinearModel())
    run = run_chains(kernel, energy, torch.zeros(num_chains, 2), num_draws=num_draws, num_warmup=0, step_size=0.1)
    return replace(run, positions=torch.stack([t, s], -1))


@pytest.mark.parametrize(
    ("num_samples", "times"), [(8, [11, 11]), (4, [11]), (10, [3, 3, 7, 7, 7, 7, 11, 11, 11, 11]), (3, [11, 11, 11])]
)
def test_samples_are_spread_over_the_run(num_samples, times):
    """At equal distances and up to the last draw; where N is no multiple of the chains, the earliest are left out."""
    taken = spread(ladder(12, 4), num_samples)
    assert len(taken) == num_samples
    if num_samples == 8:
        assert taken[:, 0].tolist() == [5] * 4 + [11] * 4
    elif len(times) == num_samples:
        assert taken[:, 0].tolist() == times
    assert taken[-1].tolist() == [11, 3]


EFFECTS = {
    "num_chains": 6,
    "num_warmup": 25,
    "num_draws": 9,
    "thinning": 2,
    "step_size": 0.05,
    "temperature": 3.0,
    "target_acceptance": 0.5,
    "num_leapfrog": 5,
    "jitter": 0.0,
}


@pytest.mark.parametrize("setting", EFFECTS)
@pytest.mark.parametrize("cls", [HamiltonianMonteCarlo, RHVAESampler, MetropolisAdjustedLangevin, LangevinDynamics])
def test_every_setting_has_an_effect(cls, setting):
    """None of them is taken and then ignored."""
    known = parameters(cls)
    if setting not in known or (cls is LangevinDynamics and setting == "target_acceptance"):
        return
    reports = []
    for changed in ({}, {setting: EFFECTS[setting]}):
        settings = {"num_chains": 4, "num_warmup": 30, "num_draws": 8}
        settings |= {"step_size": None} if setting == "target_acceptance" else {}
        torch.manual_seed(0)
        sampler = cls(**{**settings, **changed}).setup(CurvedModel(), Examples(40))
        z = sampler.sample(8).z
        reports.append((z, sampler.report))
    (before, report), (after, changed_report) = reports
    assert not torch.equal(before, after)
    if setting == "num_draws":
        assert (report.num_draws, changed_report.num_draws) == (8, 9)
    if setting == "num_chains":
        assert (report.num_chains, changed_report.num_chains) == (4, 6)
    if setting in ("num_warmup", "thinning", "num_leapfrog"):
        assert changed_report.num_gradients != report.num_gradients
    if setting == "target_acceptance":
        assert changed_report.target_acceptance == 0.5
        assert changed_report.step_size != report.step_size
    if setting == "step_size":
        assert changed_report.step_size == pytest.approx(0.05)


def test_starts_are_random():
    """Chains do not begin at one point, and not at the same points in each run."""
    for target in (ManifoldTarget(), AggregatePosteriorTarget(), PriorTarget()):
        energy = target.build(CurvedModel(), Examples(40))
        first, second = energy.start(8), energy.start(8)
        assert len(first.unique(dim=0)) > 1
        assert not torch.equal(first, second)


def test_a_generator_is_handed_on():
    energy, x, ends = GaussianEnergy(), torch.zeros(3, 2), []
    sampler = HamiltonianMonteCarlo(energy, step_size=0.3)
    for seed in (1, 1, 2):
        torch.manual_seed(99)
        ends.append(sampler.sample(x=x, n_steps=3, generator=torch.Generator().manual_seed(seed)))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_kernel_density_has_the_moments_of_its_latents():
    """Its covariance is that of the latents, plus the bandwidth's."""
    z = torch.randn(3000, 2) @ torch.tensor([[1.0, 0.4], [0.0, 0.3]]) + 2
    sampler = KernelDensitySampler().setup(LinearModel()).fit(Draws(z))
    bandwidth = 3000 ** (-2 / 6) * z.double().var(0).diag()
    assert agrees(sampler.sample(20_000).z, z.double().mean(0), z.double().T.cov() + bandwidth, 20_000)
    sampler.temperature = 0.0
    assert (sampler.sample(20).z[:, None] == z).all(-1).any(1).all()
    few = KernelDensitySampler(num_centers=10).setup(LinearModel()).fit(Draws(z))
    few.temperature = 0.0
    assert len(few.sample(500).z.unique(dim=0)) == 10


def test_a_stored_kernel_density_holds_the_centers_that_there_are(tmp_path):
    z, belongs_to, path = torch.randn(30, 2), {"checkpoint": "c", "settings": "s"}, tmp_path / "sampler.safetensors"
    fitted = KernelDensitySampler(num_centers=5000).setup(LinearModel()).fit(Draws(z))
    path.write_bytes(content(fitted, belongs_to))
    assert path.stat().st_size < 1000  # not 5000 rows
    again = KernelDensitySampler(num_centers=5000).setup(LinearModel())
    assert load(again, path, belongs_to) is None
    assert torch.equal(again.centers, fitted.centers)
    assert torch.equal(again.centers.sort(0).values, z.sort(0).values)
    fewer = KernelDensitySampler(num_centers=29).setup(LinearModel())
    assert load(fewer, path, belongs_to) == "is not what these settings would have fitted"


def test_large_pictures_are_encoded_and_decoded_a_few_at_a_time():
    """A thousand pictures of 64x64 at once would take a deep hierarchy 13 GB."""
    sizes = []

    class Large(LinearModel):
        shape = (3, 64, 64)

        def posterior(self, x, y=None):
            sizes.append(len(x))
            return super().posterior(x, y)

        def picture(self, z, y=None):
            sizes.append(len(z))
            return z

    class Split:
        def __len__(self):
            return 100

        def batch(self, rows):
            return Batch(torch.zeros(len(rows), 2))

    draws = encode(Large(), Split())
    decode(Large(), draws)
    assert sizes == [85, 15, 85, 15]
    list(posterior_moments(Large(), Split()))
    assert sizes[4:] == [85, 15]
