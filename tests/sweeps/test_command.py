"""Sweeps as they are typed: here, as processes, and looked after by `vaebench sweep`."""

import json
from pathlib import Path

import numpy as np
import pytest

from vaebench.cli.main import main
from vaebench.sweeps.record import Sweep

SMALL = ("trainer.num_epochs=1", "model.network.hidden_dims=[8]", "dataset.num_examples=100", "model.latent_dim=2")


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(*words):
    return main(["train", "-m", "model=vae", *SMALL, "hydra.sweep.dir=s", *words])


def test_a_dry_run_shows_the_jobs_and_leaves_nothing(capsys):
    assert train("seed=0,1", "sweep.dry_run=true") == 0
    assert "seed=0" in capsys.readouterr().out
    assert not Path("s").exists()


@pytest.mark.slow
def test_only_what_is_missing_runs_again(capsys):
    assert train("seed=0,1") == 0
    weights = Path("s/0/checkpoints/last.safetensors")
    before = weights.stat().st_mtime_ns
    assert train("seed=0,1") == 0
    assert "all 2 jobs of 's' are done" in capsys.readouterr().out
    assert train("seed=0,1,2") == 0
    assert [state.name for state in Sweep.open("s").states().values()] == ["done"] * 3
    assert weights.stat().st_mtime_ns == before
    assert train("seed=0,1", "trainer.batch_size=50") == 2
    assert "it differs in seed, trainer.batch_size" in capsys.readouterr().err
    Path("s/1/status.json").write_text(json.dumps({"status": "interrupted", "epoch": 0, "step": 1}))
    assert main(["sweep", "status", "s"]) == 0
    assert "interrupted" in capsys.readouterr().out
    assert main(["sweep", "resume", "s"]) == 0
    assert Sweep.open("s").unfinished() == []


@pytest.mark.slow
def test_processes_of_this_machine(capsys):
    words = (
        "hardware=submitit_local",
        "hardware.array_parallelism=2",
        "trainer.batch_size=20",
        "trainer.learning_rate=1e-3,1e30",
    )
    assert train(*words) == 1
    captured = capsys.readouterr()
    assert "is nan" in captured.err
    assert "s/.jobs/1.log" in captured.err
    assert "run them again with: vaebench sweep resume s" in captured.err
    assert [state.name for state in Sweep.open("s").states().values()] == ["done", "failed"]
    assert main(["sweep", "logs", "s"]) == 0
    assert "is nan" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("model.latent_dim=2,x",), "job 1 (model=vae"),
        (
            ("trainer.learning_rate=1e-3,-1",),
            "learning_rate=-1): trainer.learning_rate must be above 0 and finite; got -1",
        ),
        (("model.latent_dim=2,0",), "latent_dim=0): model.latent_dim must be a whole number of at least 1; got 0"),
        (
            ("model=vae,beta_vae", "model.network.hidden_dims=[8],[0]"),
            "model.network.hidden_dims=[0]): model.network.hidden_dims must be widths",
        ),
        (("model=vae,conditional_vae", "dataset=arrays", "dataset.path=x.npy"), "model=conditional_vae dataset=arrays"),
        (("callback.checkpoint.every_seconds=-1",), "every_seconds"),
        (("dataset=arrays", "dataset.path=nowhere.npz"), "nowhere.npz"),
        (("seed=range(3,3)",), "'seed=range(3,3)' matches nothing"),
        (("sweep=list",), "sweep.path"),
        (("sweep=lost",), "did you mean 'list'"),
    ],
)
def test_a_mistake_in_a_job_is_told_before_any_starts(capsys, words, sentence):
    keys = {word.partition("=")[0] for word in words}
    given = [word for word in ("model=vae", *SMALL) if word.partition("=")[0] not in keys]
    if "dataset=arrays" in words:
        given = [word for word in given if not word.startswith("dataset")]
        np.save("x.npy", np.random.default_rng(0).random((30, 4), dtype=np.float32))  # without labels
    assert main(["train", "-m", *given, "hydra.sweep.dir=s", *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not Path("s").exists()


@pytest.mark.parametrize("hardware", ["slurm", "slurm_ddp", "submitit_local"])
def test_what_submits_asks_for_a_sweep(capsys, hardware):
    assert main(["train", f"hardware={hardware}"]) == 2
    assert "add -m" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("stauts",), "there is no action 'stauts'; did you mean 'status'?"),
        (("status", "nowhere"), "there is no directory 'nowhere'"),
        (("status",), "found none under"),
        (("status", "a", "b"), "expected one directory, got 2"),
    ],
)
def test_mistakes_of_the_verb(capsys, words, sentence):
    assert main(["sweep", *words]) == 2
    assert sentence in capsys.readouterr().err
