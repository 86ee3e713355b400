from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from vaebench.cli import main
from vaebench.commands import train
from vaebench.models.vae import VAE
from vaebench.run import Run
from vaebench.trainers.training import Training

SMALL = (
    "dataset.num_examples=60",
    "trainer.batch_size=20",
    "model.latent_dim=2",
    "model.network.hidden_dims=[8]",
    "hardware=cpu",
    "hardware.threads=1",
)


@dataclass
class Answer:
    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What stderr ends with; a mistake is one line."""
        return self.err.splitlines()[-1]


@pytest.fixture
def command(monkeypatch, tmp_path) -> Iterator[Callable[..., Answer]]:
    monkeypatch.chdir(tmp_path)
    for name in ("VAEBENCH_CONF", "HYDRA_FULL_ERROR", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    before = logging.root.handlers[:], logging.root.level

    def call(*words: str) -> Answer:
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(["train", *words])
        finally:
            for handler in set(logging.root.handlers) - set(before[0]):
                handler.close()
            logging.root.handlers[:] = before[0]
            logging.root.setLevel(before[1])
        return Answer(code, out.getvalue(), err.getvalue())

    return call


def trained(command: Callable[..., Answer], folder: str, *words: str) -> Run:
    answer = command(*SMALL, f"hydra.run.dir={folder}", *words)
    assert answer.code == 0, answer.err
    return Run(folder)


def files(run: Run) -> list[str]:
    paths = [path.relative_to(run.path) for path in run.path.rglob("*") if path.is_file()]
    return sorted(str(path) for path in paths if not path.name.startswith("."))


def content(run: Run) -> dict[str, bytes]:
    return {name: (run.path / name).read_bytes() for name in files(run) if name != "train.log"}


def test_a_run_is_the_directory_of_the_design(command):
    answer = command(*SMALL, "trainer.num_epochs=2")
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
        "images/reconstructions.png",
        "images/samples.png",
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
    assert provenance["overrides"] == [*SMALL, "trainer.num_epochs=2"]
    assert provenance["start"] < provenance["end"]
    assert provenance["restarts"] == []
    assert [(row["split"], row["epoch"]) for row in run.read_metrics()] == [
        (split, epoch) for epoch in (1, 2) for split in ("train", "validation")
    ]
    log = run.log.read_text()
    for text in ("configuration of outputs/", "latent_dim=2", "network=MLP(hidden_dims=[8]", "epoch 2", "parameters"):
        assert text in log
    assert "latent_dim=2" in answer.err
    for text in ("VAE on digits: 2 epochs, 6 steps", "distortion", "rate"):
        assert text in answer.out
    assert "\x1b" not in answer.out + answer.err + log


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("model.latent_dim=abc", "model.latent_dim: expected an integer, got 'abc'"),
        ("model.latent_dim=0", "model.latent_dim must be at least 1, got 0"),
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


def test_continued_it_ends_as_if_it_had_never_stopped(command):
    whole = trained(command, "whole", "trainer.num_epochs=3")
    parts = trained(command, "parts", "trainer.num_epochs=1")
    answer = command("resume=parts", "trainer.num_epochs=3")
    assert answer.code == 0, answer.err
    assert "continuing at step 3" in answer.err
    for name in ("checkpoints/last.safetensors", "checkpoints/best.safetensors", "metrics.jsonl", "images/samples.png"):
        assert (whole.path / name).read_bytes() == (parts.path / name).read_bytes(), name
    assert yaml.safe_load(parts.config.read_text())["trainer"]["num_epochs"] == 3
    provenance = json.loads(parts.provenance.read_text())
    assert len(provenance["restarts"]) == 1
    assert provenance["restarts"][0]["end"] > provenance["end"]


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


def test_a_finished_run_is_left_as_it_is(command):
    run = trained(command, "run", "trainer.num_epochs=1")
    before = content(run)
    for words in (("resume=run",), ("hydra.run.dir=run",), ("hydra.run.dir=run", *SMALL, "trainer.num_epochs=1")):
        answer = command(*words)
        assert (answer.code, answer.err) == (0, "")
        assert answer.out == "'run' is finished; raise trainer.num_epochs to extend it\n"
    assert content(run) == before


def test_another_configuration_is_refused_with_the_differing_keys(command):
    run = trained(command, "run", "trainer.num_epochs=1")
    before = content(run)
    answer = command("resume=run", "trainer.num_epochs=2", "model.latent_dim=3", "seed=7", "hardware.threads=null")
    assert answer.code == 2
    assert "model.latent_dim was 2, now 3; seed was 0, now 7; leave these out" in answer.sentence
    assert "num_epochs was" not in answer.sentence
    assert content(run) == before


def test_fewer_epochs_than_it_has_are_refused(command):
    run = trained(command, "run", "trainer.num_epochs=2")
    before = content(run)
    answer = command("resume=run", "trainer.num_epochs=1")
    assert answer.code == 2
    assert "3 steps would be fewer than 'run' already has; raise trainer.num_epochs" in answer.sentence
    assert content(run) == before


def test_killed_before_its_first_checkpoint_it_starts_again(command):
    run = trained(command, "run", "trainer.num_epochs=1")
    once = run.metrics.read_text()
    shutil.rmtree(run.checkpoints)
    run.set_status("running")
    assert command("resume=run").code == 0
    assert run.metrics.read_text() == once
    assert run.read_status()["status"] == "done"


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


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_term(command):
    answer = command(*SMALL, "hydra.run.dir=run", "trainer.num_epochs=3", "trainer.learning_rate=1e30")
    assert answer.code == 1
    status = Run("run").read_status()
    assert status["status"] == "failed"
    assert status["reason"] in answer.sentence
    assert re.search(r"step \d+: \w+ is (nan|inf|-inf)", status["reason"])


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_marks_the_run_which_then_goes_on(command, monkeypatch, signum):
    whole = trained(command, "whole", "trainer.num_epochs=3")
    step = Training.train_step

    def interrupted(self: Training, batch: object) -> object:
        if self.step == 4:
            os.kill(os.getpid(), signum)
        return step(self, batch)

    monkeypatch.setattr(Training, "train_step", interrupted)
    answer = command(*SMALL, "hydra.run.dir=run", "trainer.num_epochs=3")
    monkeypatch.setattr(Training, "train_step", step)
    run = Run("run")
    assert answer.code == 130
    assert "to go on: vaebench train resume=run" in answer.err
    assert run.read_status()["status"] == "interrupted"
    assert run.read_status()["step"] == 5
    assert json.loads(run.provenance.read_text())["end"] is not None

    assert command("resume=run").code == 0
    assert run.last_weights.read_bytes() == whole.last_weights.read_bytes()
    assert run.metrics.read_bytes() == whole.metrics.read_bytes()


def test_a_second_process_is_refused(command):
    run = trained(command, "run", "trainer.num_epochs=1")
    before = content(run)
    with run.lock():
        answer = command("resume=run", "trainer.num_epochs=2")
    assert answer.code == 2
    assert f"process {os.getpid()} on" in answer.sentence
    assert content(run) == before


def test_a_second_process_takes_nothing_from_a_run_that_just_begins(command):
    run = Run("run")
    with run.lock():
        run.log.write_text("begun\n")
        assert command(*SMALL, "hydra.run.dir=run").code == 2
    assert run.log.read_text().startswith("begun\n")
    assert (run.path / ".lock").exists()


@pytest.mark.parametrize("name", ["last.state", "config.yaml", "status.json", "provenance.json"])
def test_a_damaged_run_is_refused_by_the_name_of_its_file(command, name):
    run = trained(command, "run", "trainer.num_epochs=1")
    path = next(run.path.rglob(name))
    path.write_bytes(b"\x80damaged")
    weights = load_file(run.last_weights)
    answer = command("resume=run", "trainer.num_epochs=2")
    assert answer.code == 2
    assert name in answer.sentence
    assert path.read_bytes() == b"\x80damaged"
    assert all(torch.equal(value, weights[key]) for key, value in load_file(run.last_weights).items())


def test_what_is_no_run_cannot_be_resumed(command):
    run = trained(command, "outputs/a/b", "trainer.num_epochs=1")
    for path, hint in (
        ("outputs", f"beneath it is the run '{run.path}'"),
        ("outputs/a/bb", f"did you mean '{run.path}'?"),
        (f"{run.path}/checkpoints", f"did you mean the run '{run.path}'?"),
    ):
        answer = command(f"resume={path}")
        assert answer.code == 2
        assert hint in answer.sentence
    assert not Path("outputs/train.log").exists()


def test_a_sweep_makes_a_run_of_each_job(command):
    answer = command(*SMALL, "trainer.num_epochs=1", "seed=0,1", "-m")
    assert answer.code == 0, answer.err
    runs = Run.find()
    assert [yaml.safe_load(run.config.read_text())["seed"] for run in runs] == [0, 1]
    assert runs[0].last_weights.read_bytes() != runs[1].last_weights.read_bytes()


def test_a_run_that_ran_out_of_time_is_not_finished(tmp_path):
    run = Run(tmp_path)
    run.set_status("done", reason="trainer.max_minutes=1 are over")
    assert not train._is_finished(run, [])
    run.set_status("done", reason="no improvement")
    assert train._is_finished(run, ["hardware.device"])
    assert not train._is_finished(run, ["trainer.patience"])
    run.set_status("interrupted")
    assert not train._is_finished(run, [])


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["own", "torchrun"])
def test_two_processes_make_one_run_that_equals_that_of_one(command, launcher):
    one = trained(command, "one", "trainer.num_epochs=2")
    torchrun = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=localhost:0",
    ]
    program = [*(torchrun if launcher == "torchrun" else []), "-m", "vaebench", "train", *SMALL, "trainer.num_epochs=2"]
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
    other = command(f"resume={folder}", "trainer.num_epochs=3", "dataset=arrays", "dataset.path=x.npz", *few)
    assert other.code == 2
    assert "dataset.path was " in other.sentence

    monkeypatch.chdir(tmp_path)
    Run(folder).config.write_text(text.replace(str(tmp_path / "x.npz"), "x.npz"))  # as someone may write it by hand
    assert command("resume=run", "trainer.num_epochs=3").code == 0
