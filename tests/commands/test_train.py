from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.commands.training_runs import SMALL, WITH_PICTURES, files, trained
from vaebench.cli.main import main
from vaebench.models.vae import VAE
from vaebench.runs.run import Run
from vaebench.trainers.training import Training


def test_a_run_is_the_directory_of_the_design(command):
    answer = command(*WITH_PICTURES, "trainer.num_epochs=2")
    assert answer.code == 0, answer.err
    last = answer.out.splitlines()[-1]
    assert last.startswith("run directory: outputs/")
    run = Run.open(last.removeprefix("run directory: "))
    assert run.path.name.endswith("-vae-digits")
    assert files(run) == [
        "checkpoints/best.safetensors",
        "checkpoints/last.safetensors",
        "checkpoints/last.state",
        "config.yaml",
        "images/interpolation.png",
        "images/latents.png",
        "images/losses.png",
        "images/reconstructions.png",
        "images/samples.png",
        "images/traversal.png",
        "metrics.jsonl",
        "provenance.json",
        "status.json",
        "train.log",
    ]
    assert Run.newest() == run

    stored = yaml.safe_load(run.config.read_text())
    assert stored["model"]["latent_dim"] == 2
    assert stored["model"]["likelihood"] == {
        "_target_": "vaebench.distributions.likelihoods.Binomial",
        "total_count": 16,
    }
    assert "resume" not in stored
    status = run.read_status()
    assert (status["status"], status["epoch"], status["step"], status["reason"]) == ("done", 2, 6, None)
    provenance = json.loads(run.provenance.read_text())
    assert provenance["overrides"] == [*WITH_PICTURES, "trainer.num_epochs=2"]
    assert provenance["start"] < provenance["end"]
    assert provenance["restarts"] == []
    assert [(row["split"], row["epoch"]) for row in run.read_metrics()] == [
        (split, epoch) for epoch in (1, 2) for split in ("train", "validation")
    ]
    log = run.log.read_text()
    for text in ("configuration of outputs/", "latent_dim=2", "hidden_dims=[8]", "epoch 2", "parameters"):
        assert text in log
    assert "latent_dim=2" in answer.err
    for text in ("VAE on digits: 2 epochs, 6 steps", "distortion", "rate"):
        assert text in answer.out
    assert "\x1b" not in answer.out + answer.err + log


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("model.latent_dim=abc", "model.latent_dim: expected an integer, got 'abc'"),
        ("model.latent_dim=0", "model.latent_dim must be a whole number of at least 1; got 0"),
        ("+model.latnt_dim=3", "model.latnt_dim: VAE has no such setting; did you mean 'latent_dim'?"),
        ("model._target_=os.system", "model._target_: 'os.system' is not allowed"),
        ("trainer.batch_size=1000", "trainer.batch_size=1000 is larger than the training split"),
        ("trainer.optimizer=Addam", "did you mean 'Adam'?"),
        ("trainer.num_epochs=0", "trainer.num_epochs"),
        ("trainer.keep_best=rat", "trainer.keep_best: validation gives no 'rat'; did you mean 'rate'?"),
        ("trainer=adversarial", "trainer: model VAE needs trainer=base, got trainer=adversarial"),
        ("hardware.precision=fp16", "hardware.precision=fp16"),
        ("seed=-1", "seed"),
        ("seed=x", "seed: expected an integer, got 'x'"),
        ("dataset.num_validation=5000", "dataset.num_validation"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_run(command, word, sentence):
    kept = [small for small in SMALL if small.partition("=")[0] != word.partition("=")[0]]
    answer = command(*kept, word)
    assert answer.code == 2
    assert sentence in answer.sentence
    assert "Traceback" not in answer.err
    assert not list(Path().rglob("*.log"))
    assert not [path for path in Path("outputs").glob("*/*")]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_leaves_no_run(command, monkeypatch, name):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda word, *rest: None if word == name else find(word, *rest))
    answer = command(*SMALL, f"callback=[{name}]")
    assert answer.code == 2
    assert answer.err == (
        f"vaebench train: callback={name} needs the package '{name}', which is not installed; "
        f"pip install 'vaebench[trackers]'\n"
    )
    assert not [path for path in Path("outputs").glob("*/*")]


def test_a_likelihood_that_has_no_probabilities_for_the_data_is_told_of(command):
    grey = command(*SMALL, "model/likelihood=bernoulli", "trainer.num_epochs=1", "hydra.run.dir=grey")
    assert grey.code == 0
    assert "model.likelihood: the data are not on the grid of 2 levels" in grey.err
    words = ("model/likelihood=bernoulli", "dataset.binarization=dynamic", "trainer.num_epochs=1")
    assert "model.likelihood:" not in command(*SMALL, *words, "hydra.run.dir=black_and_white").err


def test_one_is_singular_in_the_summary(command):
    words = [word for word in SMALL if "batch_size" not in word]
    answer = command(*words, "trainer.num_epochs=1", "trainer.batch_size=60")
    assert "VAE on digits: 1 epoch, 1 step, " in answer.out


def test_the_summary_explains_terms_that_are_too_large(command, monkeypatch):
    monkeypatch.setattr(VAE, "cautions", {"rate": (1e-9, "too much; lower x"), "distortion": (1e9, "never")})
    answer = command(*SMALL, "trainer.num_epochs=2", "hydra.run.dir=run")
    *_, rate = (row["rate"] for row in Run("run").read_metrics() if row["split"] == "train")
    sentence, last = answer.out.splitlines()[-2:]
    assert sentence == f"rate is {rate:.3g}, above 1e-09: too much; lower x"
    assert sentence in Run("run").log.read_text()
    assert last == "run directory: run"
    assert "never" not in answer.out


def test_leapfrog_steps_that_are_refused_are_told_of(command):
    words = (*SMALL, "model=rhvae", "trainer.num_epochs=1")
    long = command(*words, "model.step_size=1e6", "hydra.run.dir=long").out.splitlines()[-2]
    assert long.endswith("this share of the leapfrog steps was too long and moved nothing; lower model.step_size")
    assert "leapfrog" not in command(*words, "hydra.run.dir=short").out


def test_a_failure_says_what_it_was_and_its_traceback_is_in_the_log(command, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("the machine is on fire")

    monkeypatch.setattr(Training, "validate", fail)
    answer = command(*SMALL, "hydra.run.dir=run", "trainer.num_epochs=1")
    assert answer.code == 1
    assert "the machine is on fire" in answer.sentence
    assert "Traceback" not in answer.err
    run = Run("run")
    assert "Traceback" in run.log.read_text()
    status = run.read_status()
    assert (status["status"], status["reason"]) == ("failed", "the machine is on fire")
    assert json.loads(run.provenance.read_text())["end"] is not None


@pytest.mark.parametrize("length", ["num_epochs=3", "num_steps=1"])  # the second is found by the last validation alone
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_term(command, length):
    answer = command(*SMALL, "hydra.run.dir=run", f"trainer.{length}", "trainer.learning_rate=1e30")
    assert answer.code == 1
    status = Run("run").read_status()
    assert status["status"] == "failed"
    assert status["reason"] in answer.sentence
    assert re.search(r"step \d+: \w+ (of the validation )?is (nan|inf|-inf)", status["reason"])


def test_a_sweep_makes_a_run_of_each_job(command):
    answer = command(*SMALL, "trainer.num_epochs=1", "seed=0,1", "-m")
    assert answer.code == 0, answer.err
    runs = Run.find()
    assert [yaml.safe_load(run.config.read_text())["seed"] for run in runs] == [0, 1]
    assert runs[0].last_weights.read_bytes() != runs[1].last_weights.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["own", "torchrun"])
def test_two_processes_make_one_run_that_equals_that_of_one(command, launcher):
    small = WITH_PICTURES if launcher == "own" else SMALL
    one = trained(command, "one", "trainer.num_epochs=2", small=small)
    torchrun = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=localhost:0",
    ]
    program = [*(torchrun if launcher == "torchrun" else []), "-m", "vaebench", "train", "trainer.num_epochs=2"]
    program += small
    words = ["hardware=ddp"] if launcher == "own" else []
    program = [word for word in program if launcher == "torchrun" or word != "hardware=cpu"]
    done = subprocess.run([sys.executable, *program, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(list(Path("outputs").glob("*/*"))) == 1
    two = Run.newest()
    assert done.stdout.count("run directory: ") == 1
    assert files(two) == files(one)
    assert two.log.read_text().count("VAE on digits: 2 epochs, 6 steps") == 1
    expected = load_file(one.last_weights)
    for name, value in load_file(two.last_weights).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6)


def test_from_another_folder_the_data_are_found(command, tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", np.random.default_rng(0).integers(0, 256, (90, 6, 6), dtype=np.uint8))
    run = trained(command, "run", "dataset=arrays", "dataset.path=x.npz", "trainer.num_epochs=1")
    folder, text = run.path.resolve(), run.config.read_text()
    assert yaml.safe_load(text)["dataset"]["path"] == str(tmp_path / "x.npz")

    few = ("dataset.num_examples=60",)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["sample", f"run={folder}", "num_samples=2", "hardware=cpu"]) == 0
    again = command(
        f"resume={folder}", "trainer.num_epochs=2", "dataset=arrays", "dataset.path=../x.npz", *few
    )  # the same file
    assert again.code == 0, again.err
    shutil.copy(tmp_path / "x.npz", "x.npz")
    words = (f"resume={folder}", "dataset=arrays", "dataset.path=x.npz", *few)
    assert command(*words, "trainer.num_epochs=3").code == 0  # the same data at another place
    np.savez("x.npz", np.random.default_rng(1).integers(0, 256, (90, 6, 6), dtype=np.uint8))
    other = command(*words, "trainer.num_epochs=4")
    assert other.code == 2
    assert "the data are not those that" in other.sentence

    monkeypatch.chdir(tmp_path)
    Run(folder).config.write_text(text.replace(str(tmp_path / "x.npz"), "x.npz"))  # as someone may write it by hand
    assert command("resume=run", "trainer.num_epochs=4").code == 0
