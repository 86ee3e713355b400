"""`vaebench encode`, and runs loaded in Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import vaebench
from tests.commands.training_runs import trained
from vaebench.cli.main import main
from vaebench.core import Model


@pytest.fixture
def place(command, tmp_path) -> Path:
    trained(command, "outputs/first", "trainer.num_epochs=1")
    return tmp_path


def test_latents_are_those_of_the_model_in_the_order_of_the_split(place, capsys):
    assert main(["encode", "split=validation", "batch_size=70"]) == 0
    assert "outputs/first/latents/validation.safetensors" in capsys.readouterr().out
    found = load_file("outputs/first/latents/validation.safetensors")
    run = vaebench.load_run("outputs/first")
    assert repr(run) == f"LoadedRun(VAE on {run.dataset!r}, config of {len(run.config)} keys)"
    model, dataset, config = run
    batch = dataset.validation.batch(torch.arange(len(dataset.validation)))
    with torch.no_grad():
        q = model.posterior(batch.x, batch.y)
    torch.testing.assert_close(found["mean"], q.mean)
    torch.testing.assert_close(found["log_var"], q.log_var)
    assert found["labels"].equal(batch.y)
    record = json.loads(Path("outputs/first/latents/validation.json").read_text())
    assert (record["num_examples"], record["checkpoint"]["name"]) == (180, "best")
    assert config["model"]["latent_dim"] == 2


def test_latents_that_are_not_finite_are_not_written(place, capsys):
    weights = Path("outputs/first/checkpoints/best.safetensors")
    save_file({name: value * float("nan") for name, value in load_file(weights).items()}, weights)
    assert main(["encode"]) == 1
    assert "mean is not finite for 180 of 180 examples; nothing was written" in capsys.readouterr().err
    assert list(Path("outputs/first/latents").glob("*")) == []


def test_latents_never_lie_beside_the_record_of_others(place, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    assert main(["encode"]) == 0
    monkeypatch.setattr("vaebench.commands.encode.write_json", killed)
    assert main(["encode", "seed=1"]) == 130
    assert [path.name for path in Path("outputs/first/latents").iterdir()] == ["test.safetensors"]


def test_a_model_alone(place):
    model = vaebench.load_model()  # the newest
    assert isinstance(model, Model)
    assert not model.training
    weights = load_file("outputs/first/checkpoints/best.safetensors")
    assert all(model.state_dict()[name].equal(weight) for name, weight in weights.items())


def test_mistakes_name_what_is_near(place, capsys):
    with pytest.raises(ValueError, match="did you mean 'outputs/first'"):
        vaebench.load_run("outputs/frist")
    with pytest.raises(ValueError, match="best or last"):
        vaebench.load_model("outputs/first", "bset")
    assert main(["encode", "split=tset"]) == 2
    assert "'test'" in capsys.readouterr().err


def test_importing_vaebench_imports_no_torch():
    code = "import sys, vaebench; vaebench.load_run; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
