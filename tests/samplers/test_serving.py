"""Every sampler of the configuration on every model: it draws, or it says why not. Nothing here knows a name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests import composing
from vaebench import factory
from vaebench.core import Batch, Draws
from vaebench.energies.analytic.harmonic import HarmonicEnergy
from vaebench.factory.configurations import conf_dir, load, options
from vaebench.factory.targets import resolve
from vaebench.mcmc.kernels.riemannian_hmc import RiemannianHMCKernel
from vaebench.samplers.base import BaseSampler
from vaebench.samplers.gaussian_mixture import GaussianMixtureSampler
from vaebench.samplers.iaf import IAFSampler
from vaebench.samplers.kernel_density import KernelDensitySampler
from vaebench.samplers.latent_diffusion import LatentDiffusionSampler
from vaebench.samplers.latents import prepare
from vaebench.samplers.maf import MAFSampler
from vaebench.samplers.mcmc import MCMC
from vaebench.samplers.normal import NormalSampler
from vaebench.samplers.parallel_tempering import ParallelTempering
from vaebench.samplers.riemannian_hmc import RiemannianHMC
from vaebench.samplers.two_stage import TwoStageSampler

CONF = conf_dir()
OPTIONS = options([CONF])
QUICK = {  # of the settings that a sampler has
    "num_chains": 3,
    "num_warmup": 5,
    "num_draws": 4,  # the least
    "num_leapfrog": 1,
    "max_iterations": 5,
    "num_epochs": 1,
    "num_timesteps": 20,
    "num_blocks": 1,
    "hidden_channels": 16,
    "hidden_dim": 16,
}


class Few:
    """The first examples of a split."""

    def __init__(self, split, num: int) -> None:
        self.split, self.num = split, num

    def __len__(self) -> int:
        return self.num

    def batch(self, indices) -> Batch:
        return self.split.batch(indices)


@pytest.fixture(scope="module")
def models():
    """Every model with small networks, where its networks can be made small."""
    made, datasets = {}, {}
    for name in OPTIONS["model"]:
        cfg = composing.plain("train", f"model={name}")
        settings, network = cfg["model"], cfg["model"].get("network") or {}
        settings.update({"latent_dim": 2} if "latent_dim" in settings else {})
        small = {"hidden_dims": [8], "latent_dims": [2], "latent_channels": 1}
        network.update({key: value for key, value in small.items() if key in network})
        kind = str(cfg["dataset"])
        data = datasets[kind] = datasets.get(kind) or factory.dataset(cfg)
        model = factory.model(cfg, data).eval()
        split = Few(data.train, 60)
        with torch.no_grad():
            model.before_training(split)
            model.end_epoch(split, 30)
        if model.capabilities:
            made[name] = model, split
    return made


def choices() -> list[tuple[str, str | None]]:
    """Every sampler, and for those that take a target a target that needs a model; HMC takes them all."""
    targets = [name for name in OPTIONS["target"] if target_class(name).needs_model]
    found: list[tuple[str, str | None]] = []
    for name in OPTIONS["sampler"]:
        if "${target}" not in (CONF / "sampler" / f"{name}.yaml").read_text():
            found.append((name, None))
        else:
            found += [(name, target) for target in (targets if name == "hmc" else targets[:1])]
    return found


def target_class(name: str) -> Any:
    """Of a target: composing all of them takes a minute, and tests are collected in every worker."""
    return resolve(load(f"target/{name}", [CONF])["_target_"], "target._target_")


def built(name: str, target: str | None = None) -> BaseSampler:
    cfg = composing.plain("sample", f"sampler={name}", *([f"target={target}"] if target else []))
    cfg["sampler"].update({key: value for key, value in QUICK.items() if key in cfg["sampler"]})
    return factory.sampler(cfg)


@pytest.mark.parametrize(("name", "target"), choices())
def test_draws_or_says_why_not(models, name, target):
    sampler = built(name, target)
    for model, split in models.values():
        reason = sampler.why_not(model)
        if target != "auto":
            suits = sampler.needs <= model.capabilities and not sampler.excludes & model.capabilities
            assert (reason is None) == suits
        if reason is not None:
            assert type(model).__name__ in reason
            with pytest.raises(ValueError, match="does not serve"):
                sampler.setup(model, split)
            continue
        draws = prepare(sampler, model, split).sample(6)
        assert isinstance(draws, Draws)
        assert draws.z.shape == (6, *model.latent_shape)
        assert draws.z.dtype == next(model.parameters()).dtype
        assert (draws.y is None) == (model.draw_labels(1) is None)
        with torch.no_grad():
            images = model.decode(draws.z) if draws.y is None else model.decode(draws.z, draws.y)
        assert images.isfinite().all()


@pytest.mark.parametrize(("name", "target"), choices())
def test_what_it_learned_is_in_its_state(models, name, target):
    """A second sampler with the state of the first draws the same, without data."""
    first, second = built(name, target), built(name, target)
    model, split = next(((m, s) for m, s in models.values() if first.why_not(m) is None), (None, None))
    if model is None or not first.learns:
        assert not first.state_dict() or isinstance(first, MCMC)
        return
    prepare(first, model, split)
    second.setup(model)
    with pytest.raises(ValueError, match="fit"):
        second.sample(3)
    second.load_state_dict(first.state_dict())
    draws = []
    for sampler in (first, second):
        torch.manual_seed(3)
        draws.append(sampler.sample(5).z)
    assert torch.equal(*draws)
    assert all(tensor.isfinite().all() for tensor in first.state_dict().values())


@pytest.mark.parametrize(("name", "target"), choices())
def test_the_seed_decides(models, name, target):
    sampler = built(name, target)
    model, split = next(((m, s) for m, s in models.values() if sampler.why_not(m) is None), (None, None))
    if model is None:
        pytest.skip("no model of the configuration has what this sampler needs")
    draws = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        draws.append(prepare(sampler, model, split).sample(5).z)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_every_model_with_latents_has_a_sampler(models):
    samplers = [built(name) for name in OPTIONS["sampler"]]
    for model, _ in models.values():
        assert any(sampler.why_not(model) is None for sampler in samplers)


def test_a_sampler_of_models_refuses_to_work_without_one():
    for name in OPTIONS["sampler"]:
        sampler = built(name)
        if sampler.needs_model:
            with pytest.raises(ValueError, match="trained model"):
                sampler.setup()


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (GaussianMixtureSampler(3), "fits 3 covariances of 576 x 576"),
        (RiemannianHMC(), "several Hessians of 576 x 576"),
        (MCMC(kernel=RiemannianHMCKernel()), "sampler=riemannian_hmc takes several Hessians of 576 x 576"),
        (ParallelTempering(kernel=RiemannianHMCKernel()), "several Hessians of 576 x 576"),
        (IAFSampler(), "takes 576 passes through its networks for each likelihood"),
        (RiemannianHMC(metric="target"), None),  # the model's own metric needs no Hessian
        (MAFSampler(), None),
        (NormalSampler(), None),
    ],
)
def test_many_dimensions_are_told_where_they_take_long(sampler, message):
    model = SimpleNamespace(latent_shape=(9, 8, 8))
    assert sampler.caution(SimpleNamespace(latent_shape=(16,))) is None
    if message is None:
        assert sampler.caution(model) is None
    else:
        assert message in sampler.caution(model)


def test_of_two_reasons_against_a_flow_the_one_that_other_flows_share_comes_first():
    assert "choose sampler=latent_diffusion" in IAFSampler().why_not(latents_of(10_000))


def test_the_widest_latents_are_too_many_for_a_diffusion():
    assert LatentDiffusionSampler().why_not(latents_of(53_760)) is None
    reason = LatentDiffusionSampler().why_not(latents_of(215_040))
    assert "takes about 8.2 GiB, more than 4; choose sampler=normal, or lower sampler.hidden_dim" in reason


def test_a_flow_tells_what_its_masks_cost():
    assert "products of 1001 x 1001 matrices" in MAFSampler().caution(latents_of(1001))


def latents_of(num_dims):
    """A model with a latent of so many numbers."""
    return SimpleNamespace(
        latent_shape=(num_dims,),
        capabilities=frozenset({"prior", "posterior", "rate"}),
        reason_against=lambda capability: "it has none",
    )


@pytest.mark.parametrize(
    ("sampler", "clause"),
    [
        (RiemannianHMC(), "with D at most 1000, got 1001; nuts and hmc take one gradient in a step"),
        (MCMC(kernel=RiemannianHMCKernel()), "with D at most 1000, got 1001"),
        (ParallelTempering(kernel=RiemannianHMCKernel()), "with D at most 1000, got 1001"),
        (GaussianMixtureSampler(600), "covariance of 1001 x 1001 for each of 600 components, 4.5 GiB, more than 4"),
        (
            IAFSampler(batch_size=500),
            "a fit to latents of 1001 numbers takes about 76.9 GiB, more than 4; choose sampler=maf",
        ),
        (RiemannianHMC(metric="target"), None),
        (MAFSampler(), None),
        (MCMC(), None),
    ],
)
def test_what_no_memory_or_time_suffices_for_is_refused_at_once(sampler, clause):
    assert sampler.why_not(latents_of(100)) is None
    assert (sampler.why_not(latents_of(1001)) is None) is (clause is None)
    assert clause is None or clause in sampler.why_not(latents_of(1001))


@pytest.mark.parametrize(
    ("sampler", "clause"),
    [
        (MAFSampler(), "with D at most 5000, got 10000; choose sampler=latent_diffusion"),
        (IAFSampler(num_transforms=1, batch_size=1, hidden_features=[1]), "with D at most 5000, got 10000"),
        (TwoStageSampler(), "a fit to latents of 10000 numbers takes about 22.4 GiB, more than 4; choose"),
        (MCMC(mass_matrix="dense"), "a mass matrix of 10000 x 10000, more than 5000; set sampler.mass_matrix=diagonal"),
        (MCMC(num_draws=1000), "keeps 1000 draws of 64 chains, 10000 numbers each, 2.4 GiB, more than 2; lower"),
        (LatentDiffusionSampler(), None),
        (KernelDensitySampler(), None),
    ],
)
def test_what_grows_with_the_square_of_the_dimensions_is_refused(sampler, clause):
    assert sampler.why_not(latents_of(3000)) is None
    assert (sampler.why_not(latents_of(10_000)) is None) is (clause is None)
    assert clause is None or clause in sampler.why_not(latents_of(10_000))


def test_a_kernel_refuses_an_energy_of_too_many_dimensions():
    with pytest.raises(ValueError, match=r"kernel=riemannian_hmc takes several Hessians .* got 1001"):
        RiemannianHMC(HarmonicEnergy(1001), step_size=0.1).sample(n_steps=1)
