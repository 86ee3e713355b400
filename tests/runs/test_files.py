from __future__ import annotations

import errno
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vaebench.runs import files, regular
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
    Run(tmp_path).remove_temporaries()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["f.json"]


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


# --- what a stranger may have put there ---


def test_a_link_is_replaced_and_not_followed(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "f"
    victim.write_text("mine")
    path.symlink_to(victim)
    (tmp_path / f".tmp-{os.getpid()}-f").symlink_to(victim)
    write_atomic(path, "new")
    assert (victim.read_text(), path.read_text(), path.is_symlink()) == ("mine", "new", False)
    (tmp_path / f".tmp-{os.getpid()}-f").symlink_to(victim)
    write_atomic(path, lambda temporary: temporary.write_text("newer"))
    assert (victim.read_text(), path.read_text()) == ("mine", "newer")


def test_a_pipe_is_replaced_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "f")
    write_atomic(tmp_path / "f", "new")
    assert (tmp_path / "f").read_text() == "new"


def make_link(path):
    path.symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (os.mkfifo, "it is a named pipe"),
        (os.mkdir, "it is a folder"),
        (make_link, "it is a link"),
        (lambda path: os.mknod(path, 0o20600, os.makedev(1, 5)), "it is a device"),  # /dev/zero has no end
    ],
)
def test_only_regular_files_are_read(tmp_path, make, problem):
    path = tmp_path / "f.json"
    try:
        make(path)
    except PermissionError:
        pytest.skip("only root may make a device")
    for read in (read_json, regular.check_readable):
        with pytest.raises(ValueError, match=f"f.json' cannot be read: {problem}"):
            read(path)


def test_a_huge_file_is_not_read(tmp_path):
    with open(tmp_path / "f.json", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match="it holds 1,099,511,627,776 bytes, more than the 16,777,216 that are read"):
        read_json(tmp_path / "f.json")


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ValueError, match=r"f.json' cannot be read: Permission denied$"):
        read_json(tmp_path / "f.json")


@pytest.mark.parametrize("content", ["{", "[" * 99_999, "9" * 5_000, "\ud800".encode("utf-8", "surrogatepass")])
def test_damaged_json_is_one_sentence(tmp_path, content):
    (tmp_path / "f.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"f.json' is damaged: expected JSON"):
        read_json(tmp_path / "f.json")


# --- files that belong together ---


def folder_of(path: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in path.iterdir()}


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch, exchanges):
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda first, second: False)
    folder = tmp_path / "samples" / "normal"
    for content in ("one", "two"):
        with files.replaced_folder(folder) as staging:
            (staging / "a").write_text(content)
            (staging / f"only {content}").write_text("")
    assert folder_of(folder) == {"a": "two", "only two": ""}
    with pytest.raises(WriteError, match="No such file"), files.replaced_folder(folder) as staging:
        (staging / "not there" / "a").write_text("three")
    assert folder_of(folder) == {"a": "two", "only two": ""}
    assert [path.name for path in folder.parent.iterdir()] == ["normal"]


@pytest.mark.parametrize("exchanges", [True, False])
def test_killed_at_any_rename_a_folder_is_the_old_or_the_new(tmp_path, exchanges):
    code = """
import os, sys
from vaebench.runs import files
from vaebench.runs.run import Run
count, least, exchanges = 0, int(sys.argv[2]), sys.argv[3] == "True"
def killing(function):
    def wrapped(*arguments):
        global count
        count += 1
        if count > least: os._exit(9)
        return function(*arguments)
    return wrapped
os.replace = killing(os.replace)
exchange = files._exchange
files._exchange = killing(exchange) if exchanges else lambda first, second: False
with files.replaced_folder(sys.argv[1]) as staging:
    for name in "ab": (staging / name).write_text("new")
"""
    run = Run(tmp_path)
    folder = run.samples("hmc")
    for least in range(4):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in "ab":
            (folder / name).write_text("old")
        done = python(code, folder, least, exchanges)
        done.communicate()
        if exchanges:
            assert len(set(folder_of(folder).values())) == 1
        run.remove_temporaries()  # the next command
        assert folder_of(folder) in ({"a": "old", "b": "old"}, {"a": "new", "b": "new"})
        assert [path.name for path in folder.parent.iterdir()] == ["hmc"]
        if done.returncode == 0:
            break
    assert done.returncode == 0
    assert set(folder_of(folder).values()) == {"new"}


def test_a_file_or_a_link_in_the_place_of_a_folder_is_replaced(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "a").write_text("mine")
    for make in (lambda path: path.symlink_to(victim), lambda path: path.write_text("file")):
        folder = tmp_path / "samples" / "normal"
        folder.parent.mkdir(exist_ok=True)
        make(folder)
        with files.replaced_folder(folder) as staging:
            (staging / "a").write_text("new")
        assert folder_of(folder) == {"a": "new"}
        assert [path.name for path in folder.parent.iterdir()] == ["normal"]
        shutil.rmtree(folder)
    assert folder_of(victim) == {"a": "mine"}
