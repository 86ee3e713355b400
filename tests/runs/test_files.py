from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vaebench.runs.files import refuse_unwritable
from vaebench.runs.run import Run, WriteError, read_json, write_atomic, write_json


def python(code: str, *arguments: object, **options) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_write_atomic_takes_bytes_text_and_a_writer(tmp_path):
    write_atomic(tmp_path / "a" / "b.bin", b"\x00")
    write_atomic(tmp_path / "t.txt", "é")
    write_atomic(tmp_path / "w.png", lambda path: path.write_text(path.suffix))
    assert (tmp_path / "a" / "b.bin").read_bytes() == b"\x00"
    assert (tmp_path / "t.txt").read_text(encoding="utf-8") == "é"
    assert (tmp_path / "w.png").read_text() == ".png"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "t.txt", "w.png"]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "f"
    write_atomic(path, "old")

    def writer(temporary: Path) -> None:
        temporary.write_text("half")
        raise KeyError("own mistake")

    with pytest.raises(KeyError):
        write_atomic(path, writer)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_no_space_is_one_sentence_and_the_old_file_stays(tmp_path, monkeypatch, where):
    path = tmp_path / "f"
    write_atomic(path, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, where, full)
    with pytest.raises(WriteError, match=r"could not write '.*f': No space left on device") as caught:
        write_atomic(path, "new")
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_a_real_limit_on_file_size_destroys_nothing(tmp_path):
    code = """
import resource, sys
from vaebench.runs.run import Run, WriteError, write_atomic
from safetensors.numpy import save_file
import numpy as np
run = Run(sys.argv[1])
save = lambda size: lambda path: save_file({"w": np.zeros(size, np.uint8)}, path)
write_atomic(run.last_weights, save(10))
run.append_metrics([{"step": 1}])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (
    lambda: write_atomic(run.last_weights, b"x" * 2000),
    lambda: write_atomic(run.last_weights, save(2000)),
    lambda: run.append_metrics([{"step": 2, "text": "x" * 2000}]),
):
    try:
        write()
    except WriteError as error:
        print("WriteError", error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("WriteError could not write") == 3
    from safetensors.numpy import load_file

    run = Run(tmp_path)
    assert load_file(run.last_weights)["w"].shape == (10,)
    assert run.metrics.read_text() == '{"step": 1}\n'
    assert [path.name for path in run.checkpoints.iterdir()] == ["last.safetensors"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_sentence(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(WriteError, match="Permission denied"):
        write_atomic(tmp_path / "f", "x")


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="could not write"):
        write_atomic(tmp_path / "file" / "f", "x")


def test_killed_at_any_moment_a_reader_sees_whole_files(tmp_path):
    path = tmp_path / "f.json"
    code = """
import sys, itertools
from vaebench.runs.run import write_json
for number in itertools.count():
    write_json(sys.argv[1], {"number": number, "filler": [number] * 20000})
    if number == 0: print("ready", flush=True)
"""
    random = np.random.default_rng(0)
    for _ in range(5):
        process = python(code, path)
        assert process.stdout.readline() == "ready\n"
        time.sleep(random.uniform(0, 0.05))
        process.kill()
        process.communicate()
        content = read_json(path)
        assert set(content["filler"]) == {content["number"]}
    with Run(tmp_path).lock():  # whoever takes the directory next sweeps up
        assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock", "f.json"]


def test_json_is_strict_and_takes_numpy(tmp_path):
    write_json(
        tmp_path / "f.json", {"nan": math.nan, "inf": [np.inf], 1: np.float32(0.5), "a": np.arange(2), "p": tmp_path}
    )
    assert json.loads((tmp_path / "f.json").read_text(), parse_constant=pytest.fail) == {
        "nan": None, "inf": [None], "1": 0.5, "a": [0, 1], "p": str(tmp_path),
    }  # fmt: skip
    with pytest.raises(TypeError, match="object"):
        write_json(tmp_path / "f.json", {"x": object()})


def test_an_unwritable_folder_is_refused_by_its_key(tmp_path, monkeypatch):
    refuse_unwritable(tmp_path / "not" / "yet", "output")
    asked = []

    def access(path, mode):
        asked.append((Path(path), mode))
        return False

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(ValueError, match=f"^output: cannot write into '{tmp_path}': it cannot be written; expected a"):
        refuse_unwritable(tmp_path / "not" / "yet", "output")
    assert asked == [(tmp_path, os.W_OK | os.X_OK)]
