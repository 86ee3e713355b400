"""Every sampler on every model of the configuration: it draws, or it says why not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from vaebench import factory
from vaebench.core import Batch

CONF = Path(__file__).resolve().parents[2] / "conf"
MODELS = sorted(file.stem for file in (CONF / "model").glob("*.yaml"))
SAMPLERS = sorted(file.stem for file in (CONF / "sampler").glob("*.yaml"))
TARGETS = sorted(file.stem for file in (CONF / "target").glob("*.yaml"))
NEEDED = {"normal": "prior", "gaussian_mixture": "posterior", "rhvae": "manifold"}
NEEDED_BY_TARGET = {"prior": "prior", "aggregate_posterior": "rate", "manifold": "manifold"}
QUICK = ["sampler.num_chains=4", "sampler.num_warmup=20", "sampler.num_draws=5", "sampler.num_leapfrog=2"]


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
    made = {}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for name in MODELS:
            cfg = compose("train", [f"model={name}", "model.latent_dim=2", "model.network.hidden_dims=[8]"])
            data = factory.dataset(cfg)
            model = factory.model(cfg, data).eval()
            split = Few(data.train, 60)
            with torch.no_grad():
                model.end_epoch(split, 30)
            made[name] = model, split
    return made


@pytest.mark.parametrize(
    ("name", "target"), [(name, None) for name in SAMPLERS if name != "hmc"] + [("hmc", target) for target in TARGETS]
)
def test_draws_or_says_why_not(models, name, target):
    words = [f"sampler={name}", *([f"target={target}"] if target else []), *(QUICK if name in ("hmc", "rhvae") else [])]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        sampler = factory.sampler(compose("sample", words))
    needed = NEEDED_BY_TARGET.get(target) if target else NEEDED[name]
    for model, split in models.values():
        reason = sampler.why_not(model)
        if needed is not None:
            assert (reason is None) == (needed in model.capabilities)
        if reason is None:
            z = sampler.fit(model, split).sample(6)
            assert z.shape == (6, 2)
            assert model.decode(z).isfinite().all()
        else:
            assert type(model).__name__ in reason
            with pytest.raises(ValueError, match="does not serve"):
                sampler.fit(model, split)


def test_every_model_has_a_sampler(models):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        samplers = [factory.sampler(compose("sample", [f"sampler={name}"])) for name in SAMPLERS]
    for model, _ in models.values():
        assert any(sampler.why_not(model) is None for sampler in samplers)
