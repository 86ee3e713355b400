"""Fits by the trainers: interrupted and continued to the same bits, judged by held-out latents, kept apart."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch

from tests.samplers.test_samplers import LinearModel
from vaebench.core import Draws
from vaebench.runs.lock import LockedError
from vaebench.samplers.fitting import StandardizedModel, kept_fit
from vaebench.samplers.latent_diffusion import LatentDiffusionSampler
from vaebench.samplers.maf import MAFSampler
from vaebench.samplers.two_stage import TwoStageSampler

MAKERS = {
    "maf": lambda **more: MAFSampler(num_transforms=1, hidden_features=(8,), **more),
    "two_stage": lambda **more: TwoStageSampler(hidden_dim=8, num_layers=1, batch_size=20, **more),
    "latent_diffusion": lambda **more: LatentDiffusionSampler(hidden_dim=8, num_blocks=1, num_timesteps=9, **more),
}
EPOCHS = {"num_epochs": 5, "learning_rate": 1e-2}


def prepared(name: str, **more):
    torch.manual_seed(0)
    return MAKERS[name](**{**EPOCHS, **more}).setup(LinearModel()), Draws(3 * torch.randn(100, 2) + 1)


@pytest.mark.parametrize("name", MAKERS)
def test_an_interrupted_fit_goes_on_to_the_same_bits(name, tmp_path):
    whole, latents = prepared(name)
    whole.fit(latents)
    stopped, latents = prepared(name)

    def interrupt(done: int, total: int) -> None:
        if done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        stopped.fit(latents, interrupt, tmp_path)
    assert not stopped.is_fitted
    again, latents = prepared(name)
    told = []
    again.fit(latents, lambda done, total: told.append((done, total)), tmp_path)
    assert told == [(2, 5), (3, 5), (4, 5), (5, 5)]
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in whole.state_dict().items())


def test_the_weights_with_the_least_held_out_loss_are_kept(tmp_path):
    sampler, latents = prepared("maf", num_epochs=12, learning_rate=0.3)
    sampler.fit(latents, None, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["split"] == "validation"]
    assert min(losses) < losses[-1]
    torch.manual_seed(0)
    again = MAKERS["maf"]().setup(LinearModel())
    torch.randn(100, 2)
    held_out = torch.randperm(100)[:10]
    again.load_state_dict(sampler.state_dict())
    assert float(-again.log_prob(latents.z[held_out]).mean()) == pytest.approx(min(losses), rel=1e-5)


def test_the_fit_ends_when_patience_does():
    sampler, latents = prepared("maf", num_epochs=200, patience=2, learning_rate=0.3)
    told = []
    sampler.fit(latents, lambda done, total: told.append(done))
    assert told[-1] < 60


def test_draws_after_a_fit_do_not_depend_on_its_length():
    after = []
    for num_epochs in (1, 3):
        sampler, latents = prepared("maf", num_epochs=num_epochs)
        sampler.fit(latents)
        after.append(torch.randn(3))
    assert torch.equal(*after)


def test_standardised_latents_have_mean_0_and_scale_1():
    sampler, latents = prepared("maf")
    sampler.fit(latents)
    density: StandardizedModel = sampler.density
    u = density.standardize(latents.z)
    assert u.mean(0).abs().max() < 0.2
    assert (u.std(0) - 1).abs().max() < 0.2
    torch.testing.assert_close(density.restore(u), latents.z)


def test_a_fit_of_something_else_is_not_continued(tmp_path):
    mine, other = {"checkpoint": "a", "settings": "b"}, {"checkpoint": "c", "settings": "b"}
    place = tmp_path / "fit"
    with kept_fit(place, mine, 0):
        (place / "checkpoints").mkdir()
        (place / "metrics.jsonl").write_text("")
    with kept_fit(place, mine, 0):
        assert (place / "checkpoints").is_dir()
        with pytest.raises(LockedError), kept_fit(place, mine, 0):
            pass
    with kept_fit(place, mine, 1):
        assert not (place / "checkpoints").exists()
        (place / "checkpoints").mkdir()
    with kept_fit(place, other, 1):
        assert {path.name for path in place.iterdir()} == {"fit.json", ".lock"}


def test_too_few_latents_are_refused():
    for name in MAKERS:
        sampler, _ = prepared(name)
        with pytest.raises(ValueError, match=f"at least 20 latents to fit sampler={name} to, got 19"):
            sampler.fit(Draws(torch.randn(19, 2)))
