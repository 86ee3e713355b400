"""A stored run repeated, primary configurations of the user's, and jobs of launchers that run elsewhere."""

from __future__ import annotations

import pytest

from vaebench.cli import application
from vaebench.cli.application import JobError

STORED = """\
seed: 7
model:
  _target_: vaebench.models.vae.VAE
  latent_dim: 3
trainer:
  _target_: vaebench.trainers.base.BaseTrainer
dataset:
  _target_: vaebench.data.digits.Digits
hardware:
  _target_: vaebench.hardware.device.Hardware
"""


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "a run"
    folder.mkdir()
    (folder / "config.yaml").write_text(STORED)
    return folder


def test_a_stored_configuration_starts_a_new_run(command, tmp_path, run):
    seen = []
    words = ("--config-dir", str(run), "--config-name", "config", "model.latent_dim=5", "seed=8")
    assert command("train", *words, task=seen.append).code == 0
    (cfg,) = seen
    assert (cfg.seed, cfg.model.latent_dim, cfg.resume) == (8, 5, None)
    (made,) = (tmp_path / "outputs").glob("*/*")
    assert made.name.endswith("-vae-digits")
    assert (run / "config.yaml").read_text() == STORED


def test_several_seeds_of_a_stored_configuration(command, run):
    seen = []
    words = ("-m", "--config-dir", str(run), "--config-name", "config", "seed=1,2")
    assert command("train", *words, task=lambda cfg: seen.append(cfg.seed)).code == 0
    assert seen == [1, 2]


@pytest.mark.parametrize(
    ("verb", "words", "part"),
    [
        ("train", ["model=rhvae"], "model.KEY=VALUE"),
        ("evaluate", [], "run="),
    ],
)
def test_what_a_stored_configuration_is_not_for(command, run, verb, words, part):
    answer = command(verb, "--config-dir", str(run), "--config-name", "config", *words)
    assert answer.code == 2
    assert part in answer.err
    assert answer.err.count("\n") == 1


def test_a_stored_configuration_runs_no_code(command, run):
    (run / "config.yaml").write_text(STORED.replace("vaebench.models.vae.VAE", "os.system"))
    answer = command("train", "--config-dir", str(run), "--config-name", "config")
    assert answer.code == 2
    assert "os.system" in answer.err


def test_a_primary_configuration_that_builds_upon_the_verbs(command, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "short.yaml").write_text("defaults: [train, _self_]\ntrainer:\n  num_epochs: 1\n")
    seen = []
    words = ("--config-dir", "mine", "--config-name", "short", "model=rhvae")
    assert command("train", *words, task=lambda cfg: seen.append(cfg.trainer.num_epochs)).code == 0
    assert seen == [1]


def test_the_reason_of_a_job_that_ran_elsewhere_is_shown(command, monkeypatch, tmp_path):
    def elsewhere(*arguments):
        raise JobError(1, "failed: RuntimeError: out of memory")

    (tmp_path / "s" / ".submitit").mkdir(parents=True)
    monkeypatch.setattr(application, "call_hydra", elsewhere)
    monkeypatch.setattr(application, "folder_of", lambda error: tmp_path / "s")
    answer = command("train", "-m", "seed=1,2")
    assert answer.code == 1
    assert "a job failed: failed: RuntimeError: out of memory" in answer.err
    assert str(tmp_path / "s" / ".submitit" / "*" / "*_log.err") in answer.err


def test_the_version_is_ours(command):
    import vaebench

    assert command("train", "--version").out == f"vaebench {vaebench.__version__}\n"
