"""A run that a stranger sent: whatever its files hold, reading them runs nothing."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.composing import composed
from vaebench import factory
from vaebench.hardware.random_streams import seed_everything
from vaebench.runs.run import Run, write_atomic, write_json
from vaebench.trainers.state import load_state, save_weights


class Attack:
    """Unpickled, it writes a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch '{self.proof}'",)


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    cfg = composed("train", "model.latent_dim=2", "model.network.hidden_dims=[8]", "dataset.num_examples=40")
    run = Run(tmp_path_factory.mktemp("template") / "run")
    data = factory.dataset(cfg)
    tree = factory.with_likelihood(cfg, data)
    tree.pop("resume")
    seed_everything(0)
    model = factory.model(tree, data)
    factory.save_config(run, tree)
    write_json(run.provenance, {"start": "2026-01-01", "restarts": []})
    run.set_status("done", epoch=1, step=1)
    run.append_metrics([{"step": 1, "epoch": 1, "split": "train", "loss": 1.0}])
    save_weights(run.last_weights, model.state_dict())
    save_weights(run.best_weights, {name: value + 1 for name, value in model.state_dict().items()})
    return run.path


@pytest.fixture
def run(template, tmp_path) -> Run:
    shutil.copytree(template, tmp_path / "run")
    return Run(tmp_path / "run")


def read_everything(run: Run) -> None:
    """What the verbs do with a run that they are given."""
    Run.open(run.path)
    run.read_metrics()
    if run.last_state.exists():
        load_state(run.last_state)
    factory.load_run(run, "best")
    factory.load_run(run, "last")


def test_a_run_is_rebuilt_with_its_weights(run):
    cfg, data, model = factory.load_run(run)
    _, _, last = factory.load_run(run, "last")
    assert cfg.model.latent_dim == model.latent_dim == 2
    assert data.shape == (1, 8, 8)
    assert len(data.train) == 40
    assert not model.training
    for name, value in last.state_dict().items():
        assert torch.equal(model.state_dict()[name], value + 1)


def test_what_is_stored_is_what_is_read(run):
    tree = factory.load_config(run)
    factory.save_config(run, tree)
    assert factory.load_config(run) == tree
    odd = {
        "a": "1e-3",
        "b": 1e-5,
        "c": [None, True, "true", "null", ""],
        "d": {"e": {}},
        "f": float("inf"),
        "g": "é: #",
    }
    factory.save_config(run, odd)
    assert factory.load_config(run) == odd


def test_without_a_best_checkpoint_it_is_the_last(run):
    run.best_weights.unlink()
    _, _, model = factory.load_run(run, "best")
    _, _, last = factory.load_run(run, "last")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), last.parameters(), strict=True))


FILES = [
    "config.yaml",
    "provenance.json",
    "status.json",
    "metrics.jsonl",
    "checkpoints/last.safetensors",
    "checkpoints/best.safetensors",
    "checkpoints/last.state",
]


def pickled(attack: Attack, path: Path) -> None:
    path.write_bytes(pickle.dumps(attack))


def pickled_plainly(attack: Attack, path: Path) -> None:
    path.write_bytes(pickle.dumps({"model": attack}, protocol=0) + b"\n")


def as_torch_file(attack: Attack, path: Path) -> None:
    torch.save({"weight": attack}, path)


def as_old_torch_file(attack: Attack, path: Path) -> None:
    torch.save({"weight": attack}, path, _use_new_zipfile_serialization=False)


def as_zip(attack: Attack, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(attack))


@pytest.mark.parametrize("write", [pickled, pickled_plainly, as_torch_file, as_old_torch_file, as_zip])
@pytest.mark.parametrize("name", FILES)
def test_a_pickle_in_any_file_of_a_run_is_never_loaded(run, tmp_path, name, write):
    proof = tmp_path / "proof"
    path = run.path / name
    path.parent.mkdir(exist_ok=True)
    write(Attack(proof), path)
    if name == "metrics.jsonl" and b"\n" not in path.read_bytes():  # a line that a crash cut short
        read_everything(run)
        assert run.read_metrics() == []
    else:
        with pytest.raises(ValueError, match=path.name) as caught:
            read_everything(run)
        assert "\n" not in str(caught.value)
    assert not proof.exists()


def test_the_attack_files_are_real(tmp_path):
    pickled(Attack(tmp_path / "proof"), tmp_path / "file")
    pickle.loads((tmp_path / "file").read_bytes())
    assert (tmp_path / "proof").exists()


def hostile_yaml(proof: str) -> list[str]:
    command = f"touch {proof}"
    return [
        f"model: !!python/object/apply:os.system ['{command}']",
        f"!!python/object/apply:subprocess.check_output [['touch', '{proof}']]",
        f"model: !!python/object/new:os.system ['{command}']",
        "model: !!python/name:os.system",
        "model: !!python/module:os",
        f"model: !!python/object/apply:pathlib.PosixPath ['{proof}']",
        f"model: {{_target_: os.system, command: '{command}'}}",
        f'model: {{_target_: builtins.eval, _args_: [\'__import__("os").system("{command}")\']}}',
        f"model: {{_target_: pathlib.Path.write_text, self: {{_target_: pathlib.Path, _args_: ['{proof}']}}, data: x}}",
        f"dataset: {{_target_: asyncio.subprocess.create_subprocess_shell, cmd: '{command}'}}",
        f"dataset: {{_target_: vaebench.factory.targets.importlib.import_module, name: '{proof}'}}",
        f"dataset: {{_target_: vaebench.runs.run.write_atomic, path: '{proof}', content: x}}",
        f"dataset: {{_target_: vaebench.hardware.device.os.system, command: '{command}'}}",
        f"model: {{_target_: vaebench.models.vae.VAE, prior: {{a: [{{_target_: os.system, command: '{command}'}}]}}}}",
        "model: {_target_: vaebench.models.vae.VAE, _partial_: true}",
        f"callback: {{x: {{_target_: os.system, command: '{command}'}}}}",
        f"anything: [[{{_target_: os.system, command: '{command}'}}]]",
        "model: {latent_dim: '${oc.env:HOME}'}",
        "model: {latent_dim: '${oc.decode:1}'}",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
        "[" * 5000,
        "- a\n- b",
        "model: {",
        "model: 3\nmodel: 4",
        "\x00",
        "",
        "just text",
    ]


@pytest.mark.parametrize("number", range(len(hostile_yaml(""))))
@pytest.mark.parametrize("whole", [True, False], ids=["alone", "after the true one"])
def test_a_hostile_configuration_runs_nothing(run, tmp_path, number, whole):
    proof = tmp_path / "proof"
    text = hostile_yaml(str(proof))[number]
    before = "" if whole else run.config.read_text().replace("\nmodel:", "\nother:").replace("dataset:", "others:")
    run.config.write_text(before + text + "\n")
    if not whole and not text:
        return
    with pytest.raises(ValueError, match=r".") as caught:
        read_everything(run)
    assert not proof.exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x: !!python/object/apply:pathlib.PosixPath [a]", "got a YAML tag or alias"),  # OmegaConf would build it
        ("x: !!str 3", "got a YAML tag or alias"),
        ("x: &a [1]\ny: *a", "got a YAML tag or alias"),
        ("x: ${oc.env:HOME}", "expected resolved values"),
        ("x: [[{y: 'a${seed}'}]]", "expected resolved values"),
        ("seed: 1", "found duplicate key seed"),
        ("x: {", "expected YAML"),
        ("x: " + "[" * 5000, "expected at most 50 levels"),
    ],
)
def test_a_stored_configuration_holds_plain_values_only(run, line, reason):
    run.config.write_text(run.config.read_text() + line + "\n")
    with pytest.raises(factory.ConfigError, match=rf"config.yaml' is damaged: .*{re.escape(reason)}"):
        factory.load_config(run)


def test_targets_are_judged_before_weights_are_read(run):
    tree = factory.load_config(run)
    run.config.write_text(run.config.read_text() + "extra:\n  _target_: os.system\n")
    run.best_weights.write_bytes(b"damaged")
    with pytest.raises(factory.ConfigError, match=r"extra._target_: 'os.system' is not allowed"):
        factory.load_run(run)
    assert "extra" not in tree


DAMAGE = [b"", b"\x00" * 100, b"\xff" * 8 + b"{}", (2**40).to_bytes(8, "little") + b"{}", b"PK\x03\x04"]


@pytest.mark.parametrize("content", DAMAGE)
def test_damaged_weights_are_one_sentence(run, content):
    run.best_weights.write_bytes(content)
    with pytest.raises(ValueError, match=r"best.safetensors' are damaged") as caught:
        factory.load_run(run)
    assert "\n" not in str(caught.value)


def test_cut_weights_are_one_sentence(run):
    content = run.best_weights.read_bytes()
    for size in (7, 40, len(content) // 2, len(content) - 1):
        run.best_weights.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"best.safetensors' are damaged"):
            factory.load_run(run)


def test_the_weights_of_another_model_are_one_sentence(run):
    tree = factory.load_config(run)
    tree["model"]["latent_dim"] = 3
    factory.save_config(run, tree)
    shapes = r": 'decoder.0.weight' has shape \(8, 2\) there and \(8, 3\) here, and 2 more differ$"
    with pytest.raises(ValueError, match=rf"holds the weights of another model than config.yaml{shapes}") as caught:
        factory.load_run(run)
    assert "\n" not in str(caught.value)
    save_weights(run.best_weights, {"foreign": torch.zeros(2)})
    with pytest.raises(ValueError, match="Missing key"):
        factory.load_run(run)


def test_what_is_missing_is_named(run):
    run.best_weights.unlink()
    run.last_weights.unlink()
    with pytest.raises(ValueError, match=r"best.safetensors' are missing"):
        factory.load_run(run)
    run.config.unlink()
    with pytest.raises(ValueError, match=r"config.yaml' is missing"):
        factory.load_config(run)
    with pytest.raises(ValueError, match="expected best or last, got 'newest'"):
        factory.load_run(run, "newest")


def test_a_stored_value_that_does_not_fit_is_told_with_its_key(run):
    tree = factory.load_config(run)
    tree["model"]["latent_dim"] = "many"
    factory.save_config(run, tree)
    with pytest.raises(ValueError, match=r"config.yaml': model.latent_dim: expected an integer, got 'many'$"):
        factory.load_run(run)


def test_a_configuration_without_a_model_is_one_sentence(run):
    write_atomic(run.config, "seed: 0\n")
    with pytest.raises(ValueError, match="names no dataset"):
        factory.load_run(run)
