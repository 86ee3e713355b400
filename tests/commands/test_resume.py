"""A run that stopped, by itself or not: what continues it, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import yaml

from tests.commands.training_runs import SMALL, WITH_PICTURES, content, trained
from vaebench.commands import train
from vaebench.runs.run import Run
from vaebench.trainers.training import Training


def test_continued_it_ends_as_if_it_had_never_stopped(command):
    whole = trained(command, "whole", "trainer.num_epochs=3", small=WITH_PICTURES)
    parts = trained(command, "parts", "trainer.num_epochs=1", small=WITH_PICTURES)
    answer = command("resume=parts", "trainer.num_epochs=3")
    assert answer.code == 0, answer.err
    assert "continuing at step 3" in answer.err
    for name in ("checkpoints/last.safetensors", "checkpoints/best.safetensors", "metrics.jsonl", "images/samples.png"):
        assert (whole.path / name).read_bytes() == (parts.path / name).read_bytes(), name
    assert yaml.safe_load(parts.config.read_text())["trainer"]["num_epochs"] == 3
    provenance = json.loads(parts.provenance.read_text())
    assert len(provenance["restarts"]) == 1
    assert provenance["restarts"][0]["end"] > provenance["end"]


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
    run.set_status("running", epoch=0, step=0)
    assert command("resume=run").code == 0
    assert run.metrics.read_text() == once
    assert run.read_status()["status"] == "done"


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
    before = content(run)
    answer = command("resume=run", "trainer.num_epochs=2")
    assert answer.code == 2
    assert name in answer.sentence
    assert content(run) == before


def test_a_run_without_the_state_that_it_would_go_on_from_is_refused(command):
    run = trained(command, "run", "trainer.num_epochs=1")
    run.last_state.unlink()
    before = content(run)
    answer = command("resume=run", "trainer.num_epochs=2")
    assert answer.code == 2
    assert "has done 3 steps" in answer.sentence
    assert "last.state', from which it would go on, is missing" in answer.sentence
    assert content(run) == before


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


def test_a_run_that_ran_out_of_time_is_not_finished(tmp_path):
    run = Run(tmp_path)
    run.set_status("done", reason="trainer.max_minutes=1 are over")
    assert not train._is_finished(run, [])
    run.set_status("done", reason="no improvement")
    assert train._is_finished(run, ["hardware.device"])
    assert not train._is_finished(run, ["trainer.patience"])
    run.set_status("interrupted")
    assert not train._is_finished(run, [])
