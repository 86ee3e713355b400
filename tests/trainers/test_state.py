"""State files: what goes in comes out; what a stranger sends runs nothing; a full disk destroys nothing."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
from collections import Counter, OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.trainers.test_resume import train
from vaebench.runs.run import Run
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.state import FORMAT, load_state, load_weights, save_state, save_weights

TREE = {
    "none": None,
    "numbers": [True, 7, -0.1, 1e-300, float("inf"), 2**80],
    "tuple": (3, ("a", [1.5])),
    "empty": [{}, [], (), torch.empty(0, 3)],
    "by number": {0: torch.arange(3), 1: torch.tensor(2.5, dtype=torch.bfloat16)},
    "by tensor's name": {"tensor": "0", "dict": [["x", 1]]},
    "counter": Counter({3: 2}),
    "ordered": OrderedDict([("b", 1), ("a", torch.tensor([True]))]),
}


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return type(a) is type(b) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_tree_comes_back(tmp_path):
    save_state(tmp_path / "x.state", TREE)
    assert same(load_state(tmp_path / "x.state"), TREE)


def test_same_tree_same_bytes(tmp_path):
    save_state(tmp_path / "a", TREE)
    save_state(tmp_path / "b", TREE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_json_cannot_hold_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"state.a\[1\]: .* got object"):
        save_state(tmp_path / "x", {"a": [1, object()]})
    assert not list(tmp_path.iterdir())


def test_weights_that_share_memory_are_stored_apart(tmp_path):
    base = torch.arange(6.0)
    weights = {"all": base, "again": base, "view": base[2:4], "transposed": base.view(2, 3).T}
    save_weights(tmp_path / "w.safetensors", weights)
    assert same(load_weights(tmp_path / "w.safetensors"), {name: weights[name] for name in sorted(weights)})


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what a process has mapped")
def test_what_was_read_does_not_hold_the_file(tmp_path):
    save_state(tmp_path / "x.state", TREE)
    save_weights(tmp_path / "x.safetensors", {"a": torch.ones(3)})
    kept = load_state(tmp_path / "x.state"), load_weights(tmp_path / "x.safetensors")
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    assert kept


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


def tree_file(path, tree):
    save_file({}, path, {FORMAT: json.dumps(tree)})


ATTACKS = {
    "pickle": lambda path, mark: path.write_bytes(pickle.dumps(Evil(mark))),
    "torch": lambda path, mark: torch.save(Evil(mark), path),
    "empty": lambda path, mark: path.write_bytes(b""),
    "text": lambda path, mark: path.write_text("import os"),
    "huge header": lambda path, mark: path.write_bytes(struct.pack("<Q", 2**60) + b"{}"),
    "foreign": lambda path, mark: save_file({"a": torch.ones(2)}, path),
    "no json": lambda path, mark: save_file({}, path, {FORMAT: "not json"}),
    "list on top": lambda path, mark: tree_file(path, [1, 2]),
    "unknown kind": lambda path, mark: tree_file(path, {"_target_": "os.system"}),
    "two kinds": lambda path, mark: tree_file(path, {"dict": [], "tuple": []}),
    "bad tensor": lambda path, mark: tree_file(path, {"dict": [["a", {"tensor": "nowhere"}]]}),
    "bad pairs": lambda path, mark: tree_file(path, {"dict": [["a"]]}),
    "unhashable key": lambda path, mark: tree_file(path, {"dict": [[["a"], 1]]}),
    "deep": lambda path, mark: save_file({}, path, {FORMAT: "[" * 100_000 + "]" * 100_000}),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_state_is_refused_and_runs_nothing(attack, tmp_path):
    path, mark = tmp_path / "last.state", tmp_path / "executed"
    ATTACKS[attack](path, mark)
    with pytest.raises(ValueError, match=r"checkpoint '.*last.state' is damaged or foreign"):
        load_state(path)
    assert not mark.exists()


@pytest.mark.parametrize("attack", ["pickle", "torch", "empty", "text", "huge header"])
def test_hostile_weights_are_refused_and_run_nothing(attack, tmp_path):
    path, mark = tmp_path / "last.safetensors", tmp_path / "executed"
    ATTACKS[attack](path, mark)
    with pytest.raises(ValueError, match=r"weights '.*last.safetensors' are damaged"):
        load_weights(path)
    assert not mark.exists()


def test_attacks_are_real(tmp_path):
    pickle.loads(pickle.dumps(Evil(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def test_truncated_checkpoint_is_refused(tmp_path):
    train("base", tmp_path, num_epochs=1)
    state = Run(tmp_path).last_state
    whole = state.read_bytes()
    for size in (7, 100, len(whole) // 2, len(whole) - 1):
        state.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="is damaged or foreign"):
            train("base", tmp_path, num_epochs=2)


def test_state_of_the_right_form_with_wrong_content_is_refused(tmp_path):
    train("base", tmp_path, num_epochs=1)
    path = Run(tmp_path).last_state
    tree = load_state(path)
    for change in ({"model": {}}, {"parts": {}}, {"rng": {"python": 3}}, {"model": {**tree["model"], "x": 1}}):
        save_state(path, {**tree, **change})
        with pytest.raises(ValueError, match="does not fit this training"):
            train("base", tmp_path, num_epochs=2)


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint '.*nowhere' is missing"):
        load_state(tmp_path / "nowhere")


class Filling(Callback):
    """Fills the disk after some steps."""

    def __init__(self, disk, step):
        self.disk, self.step = disk, step

    def on_step_end(self, training):
        if training.step == self.step:
            with open(self.disk / "ballast", "wb", buffering=0) as file:
                for size in (4096, 512, 1):
                    try:
                        while True:
                            file.write(b"\0" * size)
                    except OSError:
                        continue


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a small disk needs to be root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("step", [8, 14])
def test_full_disk_keeps_the_last_checkpoint(small_disk, step, tmp_path):
    train("base", tmp_path / "whole")
    path = small_disk / "run"
    with pytest.raises(OSError, match="No space left"):
        train("base", path, [Filling(small_disk, step)])
    assert load_state(Run(path).last_state)["step"] < step
    assert load_weights(Run(path).last_weights)
    (small_disk / "ballast").unlink()
    train("base", path)
    for name in ("metrics.jsonl", "checkpoints/last.state", "checkpoints/best.safetensors"):
        assert (path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_failing_write_keeps_the_last_checkpoint(function, tmp_path, monkeypatch):
    train("base", tmp_path / "run", num_epochs=1)
    before = load_state(Run(tmp_path / "run").last_state)

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    class Breaking(Callback):
        def on_epoch_end(self, training):
            monkeypatch.setattr(os, function, fail)

    with pytest.raises(OSError, match="No space left"):
        train("base", tmp_path / "run", [Breaking()], num_epochs=2)
    monkeypatch.undo()
    after = load_state(Run(tmp_path / "run").last_state)
    assert after["step"] == before["step"]
    assert same(after["model"], before["model"])
    assert not [file for file in tmp_path.rglob("*") if file.name.startswith(".tmp")]
    train("base", tmp_path / "whole", num_epochs=2)
    train("base", tmp_path / "run", num_epochs=2)
    assert Run(tmp_path / "run").last_state.read_bytes() == Run(tmp_path / "whole").last_state.read_bytes()


def test_unwritable_directory_is_one_sentence(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where a folder should be")
    with pytest.raises(OSError, match=r"could not write '.*last.safetensors'.*what was there before is unchanged"):
        train("base", tmp_path)
