"""`vaebench sample` on energies, without a model: files, pictures, an animation, draws for ArviZ."""

from __future__ import annotations

import itertools
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.commands.test_sample import make_run, sample
from vaebench.report import netcdf
from vaebench.report.grouping import make_sections
from vaebench.report.reading import read_run

FEW = ("num_samples=60", "sampler.num_chains=5", "sampler.num_warmup=20", "sampler.num_draws=12")


@pytest.mark.parametrize(
    ("sampler", "target"), [("langevin", "double_well"), ("mala", "rosenbrock"), ("langevin", "gaussian")]
)
def test_an_energy_needs_no_run(tmp_path, monkeypatch, capsys, sampler, target):
    monkeypatch.chdir(tmp_path)
    quick = ("sampler.num_chains=4", "sampler.num_warmup=20", "sampler.num_draws=20", "sampler.step_size=0.001")
    assert sample(f"sampler={sampler}", f"target={target}", "num_samples=10", *quick) == 0
    [path] = Path("outputs").glob(f"*/*-{sampler}-{target}")
    names = {file.name for file in path.rglob("*") if file.is_file()}
    assert {"config.yaml", "provenance.json", "status.json", "samples.safetensors", "diagnostics.json"} <= names
    assert {"landscape.png", "marginals.png", "traces.png"} <= names
    folder = path / "samples" / sampler
    tensors = load_file(folder / "samples.safetensors")
    assert tensors["draws"].shape == (10, 2)
    assert tensors["trajectory"].shape == (4, 20, 2)
    assert torch.equal(tensors["draws"][-4:], tensors["trajectory"][:, -1])
    record = json.loads((folder / "diagnostics.json").read_text())
    assert record["bias_in_standard_errors"] > 0
    assert record["settings"]["temperature"] == 1.0
    assert json.loads((path / "status.json").read_text())["status"] == "done"
    out = capsys.readouterr().out
    assert "effective draws per 1000 gradients" in out
    if sampler == "langevin":  # nothing can be rejected, so there is no verdict on acceptance, but one on the bias
        assert record["diagnostics"]["acceptance_rate"] is None
        assert "accepted" not in out
        assert "bias" in out


def test_the_landscape_is_a_picture_of_the_chains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sample("sampler=mala", "target=double_well", "hydra.run.dir=here") == 0
    with Image.open(tmp_path / "here" / "samples" / "mala" / "landscape.png") as picture:
        assert min(picture.size) > 400
        assert len(picture.convert("RGB").getcolors(10**6)) > 100
    assert sample("sampler=mala", "target=double_well", "hydra.run.dir=here") == 2  # never over something else
    found = json.loads((Path("here") / "evaluation" / "chains.json").read_text())["values"]
    assert set(found) == {"ess_per_1000_gradients", "ess_per_second", "bias_in_standard_errors", "r_hat"}
    section = make_sections([read_run(Path("here"))])[0]
    assert section.dataset == "target=double_well"
    assert {name for name, _ in section.columns} == set(found)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sampler=hmc", "target=double_well", "run=a"], "needs no trained model; leave run= out"),
        (["sampler=langevin", "target=double_well", "sampler.step_size=0"], "sampler.step_size must be above 0"),
        (
            ["sampler=langevin", "target=double_well", "sampler.step_size=null"],
            "sampler.step_size must be above 0 for kernel=langevin, which has no acceptance rate to tune it for",
        ),
        (["sampler=langevin", "target=double_well", "sampler.target_acceptance=0.5"], "target_acceptance must be null"),
        (["sampler=mala", "target=double_well", "target.num_dims=0"], "num_dims must be"),
        (["sampler=mala", "target=gaussian", "target.mean=[0,0,0]"], "covariance shape"),
        (["sampler=mala", "target=double_wel"], "did you mean 'double_well'"),
        (["sampler=mala", "kernel=hmc_", "target=gaussian"], "did you mean 'hmc'"),
        (["sampler=mala", "kernel=langevin", "target=gaussian"], "kernel: sampler=mala has a kernel of its own"),
    ],
)
def test_a_mistake_about_energies_is_one_sentence(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    assert sample(*words) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert re.search(sentence, error), error
    assert not (tmp_path / "outputs").exists()


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
