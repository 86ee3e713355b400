"""What one command line can ask of a training: callbacks, a model of one's own, weights to start from, an end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.commands.training_runs import SMALL, WITH_PICTURES, content, trained
from tests.sweeps.stand_in import wait_for
from vaebench import factory
from vaebench.hardware.signals import NAMES
from vaebench.runs.run import Run
from vaebench.trainers.training import Training

DEFAULTS = {"progress", "images", "checkpoint"}


def stored_callbacks(run):
    return yaml.safe_load(run.config.read_text())["callback"]


# Callbacks


def test_default_callbacks_are_configuration(command):
    run = trained(
        command, "run", "trainer.num_epochs=1", "callback.checkpoint.every_seconds=5", "callback=[throughput]"
    )
    assert set(stored_callbacks(run)) == DEFAULTS | {"throughput"}
    assert stored_callbacks(run)["checkpoint"]["every_seconds"] == 5.0
    assert [row for row in run.read_metrics() if row["split"] == "resources"]


@pytest.mark.parametrize("words", [("callback.images=null",), ("~callback.images",)])
def test_default_callbacks_are_switched_off(command, words):
    run = trained(command, "run", "trainer.num_epochs=1", *words, small=WITH_PICTURES)
    assert not run.images.exists()
    assert run.best_weights.is_file()


def test_a_run_that_keeps_no_weights_says_so(command):
    answer = command(*SMALL, "hydra.run.dir=run", "trainer.num_epochs=1", "callback.checkpoint=null")
    assert answer.code == 0
    assert "callback.checkpoint is left out: no weights are kept" in answer.err
    assert not Run("run").checkpoints.exists()


def test_a_callbacks_mistake_names_its_key(command):
    answer = command(*SMALL, "callback.checkpoint.every_seconds=-1")
    assert answer.code == 2
    assert "callback.checkpoint.every_seconds must be at least 0 and finite; got -1" in answer.sentence


@pytest.mark.parametrize("model", ["aae", "vae_gan"])
def test_adversarial_models_are_watched_for_collapse(command, model):
    run = trained(command, "run", f"model={model}", "trainer.num_epochs=1")
    assert set(stored_callbacks(run)) == DEFAULTS | {"posterior_collapse"}
    assert [row["split"] for row in run.read_metrics()].count("latent") == 1


# A model of one's own


def test_an_energy_model_of_ones_own_trains(command, monkeypatch, tmp_path):
    package = tmp_path / "their_models"
    (package / "conf" / "model").mkdir(parents=True)
    (package / "energy.py").write_text(
        textwrap.dedent(
            """
            import torch
            from torch import nn
            from vaebench.core import Loss, Model

            class Energy(Model):
                def __init__(self, shape, hidden_dim: int = 8):
                    super().__init__()
                    self.shape = tuple(shape)
                    hidden = nn.Linear(64, hidden_dim)
                    self.energy = nn.Sequential(nn.Flatten(), hidden, nn.Tanh(), nn.Linear(hidden_dim, 1))

                def loss(self, batch, step):
                    data, noise = self.energy(batch.x)[:, 0], self.energy(torch.randn_like(batch.x))[:, 0]
                    return Loss.mean(data - noise + data.square() + noise.square(), energy=data)
            """
        )
    )
    (package / "conf" / "model" / "energy.yaml").write_text("_target_: their_models.energy.Energy\nhidden_dim: 4\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("VAEBENCH_ALLOW", "their_models")
    monkeypatch.setenv("VAEBENCH_CONF", str(package / "conf"))
    small = [word for word in SMALL if not word.startswith("model.")]
    answer = command(
        *small, "model=energy", "trainer.num_epochs=2", "hydra.run.dir=run", "callback=[posterior_collapse]"
    )
    assert answer.code == 0, answer.err
    assert "Energy on digits: 2 epochs" in answer.out
    assert "posterior_collapse watches nothing: Energy has no posterior" in Run("run").log.read_text()
    assert "energy" in Run("run").read_metrics()[-1]


# Weights to start from


def test_a_new_run_starts_from_anothers_weights_and_says_so(command):
    first = trained(command, "first", "trainer.num_epochs=1")
    tiny = ("trainer.num_steps=1", "trainer.learning_rate=1e-30")
    second = trained(command, "second", "init_from=first", *tiny)
    best = load_file(first.best_weights)
    for name, value in load_file(second.last_weights).items():
        assert torch.equal(value, best[name]), name
    record = json.loads(second.provenance.read_text())["init_from"]
    assert record["path"] == str(first.best_weights.resolve())
    assert (record["run_epoch"], record["run_step"], record["parts"]) == (1, 3, None)
    assert yaml.safe_load(second.config.read_text())["init_from"] == str(first.path.resolve())
    assert second.read_metrics()[0]["step"] == 1

    part = trained(command, "part", f"init_from={first.last_weights}", "init_parts=[encoder]", *tiny, "seed=3")
    fresh = trained(command, "fresh", *tiny, "seed=3")
    weights, new = load_file(part.last_weights), load_file(fresh.last_weights)
    for name, value in load_file(first.last_weights).items():
        assert torch.equal(weights[name], value if name.startswith("encoder.") else new[name]), name


def test_a_run_from_weights_is_resumed_from_its_own(command):
    trained(command, "first", "trainer.num_epochs=1")
    whole = trained(command, "whole", "init_from=first", "trainer.num_epochs=2")
    parted = trained(command, "parted", "init_from=first", "trainer.num_epochs=1")
    Run("first").best_weights.unlink()  # needed no more
    Run("first").last_weights.unlink()
    assert command("resume=parted", "trainer.num_epochs=2").code == 0
    assert parted.last_weights.read_bytes() == whole.last_weights.read_bytes()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("init_from=frist",), "init_from: 'frist' does not exist; did you mean 'first'?"),
        (("init_from=first/config.yaml",), "init_from: weights 'first/config.yaml' are damaged"),
        (("init_from=first", "model.latent_dim=3"), "' has shape ("),
        (("init_from=first", "model=factor_vae"), "has no 'discriminator"),
        (
            ("init_from=first", "init_parts=[encodr]"),
            "init_parts: the model has no part 'encodr'; did you mean 'encoder'",
        ),
        (("init_parts=[encoder]",), "init_parts names parts of the weights in init_from; set init_from="),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_there_is_a_run(command, words, sentence):
    trained(command, "first", "trainer.num_epochs=1")
    keys = {word.partition("=")[0] for word in words}
    answer = command(*(word for word in SMALL if word.partition("=")[0] not in keys), *words)
    assert answer.code == 2
    assert sentence in answer.sentence.replace(f"{Path().resolve()}/", "")
    assert not list(Path("outputs").glob("*/*"))


def test_another_learning_rate_is_refused_with_the_way_to_have_it(command):
    trained(command, "run", "trainer.num_epochs=1")
    answer = command("resume=run", "trainer.num_epochs=2", "trainer.learning_rate=1e-4")
    assert answer.code == 2
    assert "trainer.learning_rate was 0.001, now 0.0001" in answer.sentence
    assert "to start a new run from its weights give init_from=<run>" in answer.sentence


# What cannot go on, or goes wrong


def test_a_schedule_that_cannot_be_made_longer_leaves_the_run_as_it_was(command):
    words = ("trainer.scheduler=OneCycleLR", "trainer.scheduler_args={max_lr:0.01}", "trainer.scheduler_interval=step")
    run = trained(command, "run", "trainer.num_epochs=2", *words)
    before = content(run)
    answer = command("resume=run", "trainer.num_epochs=4")
    assert answer.code == 2
    assert "OneCycleLR was made for 6 steps and cannot go on to 12" in answer.sentence
    assert content(run) == before
    assert run.read_status()["status"] == "done"


def test_a_divergence_is_told_at_once_and_at_the_end(command):
    words = ("trainer.num_epochs=3", "trainer.learning_rate=1e6")
    answer = command(*SMALL, "hydra.run.dir=run", *words)
    assert answer.code == 0
    assert answer.err.count("training has diverged: loss was") == 1
    sentence = answer.out.splitlines()[-2]
    assert sentence.startswith("training has diverged: loss was")
    assert sentence.endswith("lower trainer.learning_rate or set trainer.gradient_clip_norm")
    assert "diverged" not in "".join(vars(command(*SMALL, "trainer.num_epochs=3")).get("err", ""))
    assert all(len(word) < 15 for line in answer.out.splitlines() if "|" not in line for word in line.split()[1:4])


# Signals


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_before_there_is_a_run_leaves_none(command, monkeypatch, name):
    def interrupted(tree):
        os.kill(os.getpid(), getattr(signal, name))
        raise AssertionError("nothing is done after the signal")

    monkeypatch.setattr(factory, "dataset", interrupted, raising=False)
    before = [signal.getsignal(getattr(signal, other)) for other in NAMES]
    answer = command(*SMALL)
    assert (answer.code, answer.err) == (130, "vaebench: interrupted\n")
    assert not list(Path("outputs").glob("*/*"))
    assert [signal.getsignal(getattr(signal, other)) for other in NAMES] == before


def test_a_signal_before_the_first_step_marks_the_run(command, monkeypatch):
    monkeypatch.setattr(Training, "run_to_end", lambda self: os.kill(os.getpid(), signal.SIGTERM))
    answer = command(*SMALL, "hydra.run.dir=run")
    assert answer.code == 130
    assert Run("run").read_status()["status"] == "interrupted"
    assert json.loads(Run("run").provenance.read_text())["end"] is not None


def test_a_signal_while_modules_are_imported_waits_for_the_end_of_that(tmp_path):
    program = """
        import os, signal, sys
        from vaebench.hardware import signals
        with signals.interruptible():
            os.kill(os.getpid(), signal.SIGTERM)
            print("imported", flush=True)
            try:
                signals.raise_interrupts()
            except KeyboardInterrupt as error:
                print(error, flush=True)
            try:
                os.kill(os.getpid(), signal.SIGHUP)
            except KeyboardInterrupt as error:
                print(error, flush=True)
        with signals.interruptible():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)  # somebody insists
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n") == ["imported", "interrupted by SIGTERM", "interrupted by SIGHUP", ""]
    assert (done.returncode, done.stderr) == (130, "")


def catches(process, number):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return bool(int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16) >> (number - 1) & 1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc, which says what a process catches")
@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.2, 2.7])
def test_a_command_ends_with_130_whenever_it_is_interrupted(tmp_path, seconds):
    words = [
        sys.executable,
        "-m",
        "vaebench",
        "train",
        "trainer.num_epochs=100000",
        "hydra.run.dir=run",
        "hardware=cpu",
    ]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: catches(process, signal.SIGUSR1), pause=0.001)
    if seconds == 0.0:
        assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()  # so early
    time.sleep(seconds)
    process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    run = Run(tmp_path / "run")
    assert not run.path.exists() or run.read_status()["status"] == "interrupted"
