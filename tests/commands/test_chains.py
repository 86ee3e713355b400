"""`vaebench sample` on energies, without a model: files, pictures, an animation, draws for ArviZ."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from tests.commands.test_sample import make_run, sample
from vaebench.report import netcdf

FEW = ("num_samples=60", "sampler.num_chains=5", "sampler.num_warmup=20", "sampler.num_draws=12")


def test_an_animation_shows_each_draw(tmp_path):
    words = ("sampler=mala", "target=double_well", "animation=true", f"hydra.run.dir={tmp_path / 'a'}")
    assert sample(*words, *FEW) == 0
    with Image.open(tmp_path / "a" / "samples" / "mala" / "animation.gif") as film:
        assert film.n_frames == 12
        frames = []
        for number in range(12):
            film.seek(number)
            frames.append(np.asarray(film.convert("RGB")))
    assert all((one != other).any() for one, other in itertools.pairwise(frames))


def test_draws_are_what_arviz_reads(tmp_path):
    arviz = read_arviz()
    words = ("sampler=hmc", "target=gaussian", "sampler.thinning=2", f"hydra.run.dir={tmp_path / 'a'}")
    assert sample(*words, *FEW) == 0
    folder = tmp_path / "a" / "samples" / "hmc"
    found = arviz.from_netcdf(str(folder / "draws.nc"))
    trajectory = load_file(folder / "samples.safetensors")["trajectory"]
    np.testing.assert_array_equal(found.posterior["x"].values, trajectory.numpy())
    assert found.posterior.attrs["title"] == "sampler=hmc target=gaussian"
    assert {name: value.shape for name, value in found.sample_stats.items()} == {
        "acceptance_rate": (5, 12),
        "diverging": (5, 12),
        "energy": (5, 12),
    }
    r_hat = json.loads((folder / "diagnostics.json").read_text())["diagnostics"]["r_hat"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_allclose(arviz.rhat(found)["x"].values, r_hat, rtol=1e-3)


def test_chains_on_a_model_leave_draws_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = make_run(Path("outputs/a"))
    assert sample("sampler=hmc", "target=prior", "sampler.num_leapfrog=2", *FEW) == 0
    assert read_arviz().from_netcdf(str(run.samples("hmc") / "draws.nc")).posterior["x"].shape == (5, 12, 3)
    assert sample("sampler=hmc", "target=prior", "sampler.num_leapfrog=2", "netcdf=false", *FEW) == 0
    assert not (run.samples("hmc") / "draws.nc").exists()


def test_without_arviz_only_who_asks_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(netcdf, "is_available", lambda: False)
    words = ("sampler=mala", "target=double_well", *FEW)
    assert sample(*words, "netcdf=true", f"hydra.run.dir={tmp_path / 'a'}") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert sample(*words, f"hydra.run.dir={tmp_path / 'b'}") == 0
    assert not (tmp_path / "b" / "samples" / "mala" / "draws.nc").exists()
    assert "arviz" not in capsys.readouterr().err.lower()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sampler=normal", "animation=true"], "animation: sampler=normal draws latents of a model here"),
        (["sampler=normal", "netcdf=true"], "netcdf: draws.nc holds Markov chains, and sampler=normal has none"),
        (["animation=3"], "animation: expected true or false"),
    ],
)
def test_files_that_are_not_written_are_refused(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    make_run(Path("outputs/a"))
    assert sample(*words) == 2
    assert sentence in capsys.readouterr().err


def read_arviz():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz
    return arviz
