from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vaebench.runs import run as run_module
from vaebench.runs.regular import MAX_BYTES
from vaebench.runs.run import LockedError, Run, read_json, write_atomic, write_json


def make_run(path: Path, start: str = "2026-01-01T00:00:00.000+00:00", *, weights: bool = True) -> Run:
    run = Run(path)
    write_atomic(run.config, "seed: 0\n")
    write_json(run.provenance, {"start": start, "restarts": []})
    run.set_status("done", epoch=1, step=2)
    if weights:
        write_atomic(run.last_weights, b"weights")
    return run


def python(code: str, *arguments: object, **options) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_run_needs_no_torch():
    imports = "import sys, vaebench.runs.run; from vaebench.runs.provenance import describe"
    code = f"{imports}; describe(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_paths_are_those_of_the_design():
    run = Run("r")
    names = [
        run.config, run.provenance, run.status, run.metrics, run.log, run.last_weights, run.best_weights,
        run.last_state, run.images, run.samples("hmc"), run.evaluation("elbo"),
    ]  # fmt: skip
    assert [str(name.relative_to("r")) for name in names] == [
        "config.yaml", "provenance.json", "status.json", "metrics.jsonl", "train.log",
        "checkpoints/last.safetensors", "checkpoints/best.safetensors", "checkpoints/last.state",
        "images", "samples/hmc", "evaluation/elbo.json",
    ]  # fmt: skip


# --- status, metrics ---


def test_status_keeps_what_is_not_said(tmp_path):
    run = Run(tmp_path)
    assert run.read_status() == {}
    run.set_status("running", epoch=3, step=30)
    run.set_status("failed", reason="loss is nan")
    status = run.read_status()
    assert (status["status"], status["epoch"], status["step"], status["reason"]) == ("failed", 3, 30, "loss is nan")
    run.status.write_text("{")
    run.set_status("running")
    assert run.read_status()["step"] == 0
    with pytest.raises(ValueError, match="got 'finished'"):
        run.set_status("finished")


def row(step: int) -> dict[str, object]:
    return {"step": step, "epoch": 1, "split": "train", "loss": 2.5}


def test_metrics_survive_a_cut_last_line_and_report_other_damage(tmp_path):
    run = Run(tmp_path)
    assert run.read_metrics() == []
    run.append_metrics([row(1), row(2)])
    offset = run.metrics_offset()
    run.append_metrics([row(3)])
    with open(run.metrics, "ab") as file:
        file.write(b'{"step": 4, "lo')
    assert [row["step"] for row in run.read_metrics()] == [1, 2, 3]
    run.truncate_metrics(offset)
    run.append_metrics([row(3)])
    assert [row["step"] for row in run.read_metrics()] == [1, 2, 3]
    run.check_metrics()
    with pytest.raises(ValueError, match=r"metrics.jsonl' is damaged: it holds \d+ bytes, and held 999"):
        run.truncate_metrics(999)
    run.metrics.write_bytes(b'{"changed": 1}' + run.metrics.read_bytes())
    with pytest.raises(ValueError, match=rf"was changed since .* a line ended at byte {offset}; remove it to resume"):
        run.truncate_metrics(offset)
    assert b'"changed"' in run.metrics.read_bytes()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"\xff", "is not JSON"),
        (b"[" * 9_999, "is not JSON"),
        (b'{"step": ' + b"9" * 5_000 + b"}", "is not JSON"),
        (b"[1]", "is not an object with step, epoch and split"),
        (b'{"step": 1, "epoch": 1}', "is not an object with step, epoch and split"),
        (b'{"step": 1, "epoch": 1e308, "split": "train"}', "is not an object with step, epoch and split"),
        (b'{"step": -1, "epoch": 1, "split": "train"}', "is not an object with step, epoch and split"),
        (b'{"step": true, "epoch": 1, "split": "train"}', "is not an object with step, epoch and split"),
        (b" " * (MAX_BYTES + 1), "has no end"),
    ],
)
def test_a_damaged_line_of_the_metrics_is_named(tmp_path, line, problem):
    run = Run(tmp_path)
    run.append_metrics([row(1)])
    with open(run.metrics, "ab") as file:
        file.write(line + b"\n")
    with pytest.raises(ValueError, match=f"metrics.jsonl' is damaged: line 2 {problem}; mend or remove the file"):
        run.check_metrics()


def test_an_endless_line_is_not_read_whole(tmp_path):
    run = Run(tmp_path)
    with open(run.metrics, "wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match="line 1 has no end"):
        run.read_metrics()


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"status": "finished"}, "expected a status of running, done, failed, interrupted, got 'finished'"),
        ({"status": "\x1b]0;x"}, r"got '\\x1b\]0;x'"),
        ({"status": ["done"]}, r"got \['done'\]"),
        ({"epoch": "three"}, "expected a whole number as epoch, got 'three'"),
        ({"step": 2.5}, "expected a whole number as step, got 2.5"),
        ({"step": -1}, "expected a whole number as step, got -1"),
        ({"epoch": True}, "expected a whole number as epoch, got True"),
        ({"reason": {"a": 1}}, "expected a text as reason"),
    ],
)
def test_a_status_of_other_kinds_is_damage(tmp_path, entry, problem):
    run = Run(tmp_path)
    write_json(run.status, {"status": "done", "epoch": 1, "step": 2, "reason": None, **entry})
    with pytest.raises(ValueError, match=f"status.json' is damaged: .*{problem}"):
        run.read_status()


# --- lock ---

HOLD = """
import sys, time
from vaebench.runs.run import Run
with Run(sys.argv[1]).lock():
    print("locked", flush=True)
    if len(sys.argv) > 2:
        import multiprocessing, os
        def outlive():
            print(os.getpid(), flush=True)  # by the child, which has let go of the lock before it runs this
            time.sleep(60)
        multiprocessing.get_context("fork").Process(target=outlive).start()
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path):
    holder = python(HOLD, tmp_path)
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(LockedError, match=f"process {holder.pid} on .* is training into it"), Run(tmp_path).lock():
            pass
    finally:
        holder.kill()
        holder.communicate()
    with Run(tmp_path).lock():  # a crash leaves no lock
        pass


def test_a_child_that_outlives_a_killed_holder_does_not_keep_the_lock(tmp_path):
    holder = python(HOLD, tmp_path, "fork")
    assert holder.stdout.readline() == "locked\n"
    child = int(holder.stdout.readline())
    try:
        holder.kill()
        holder.wait()
        with Run(tmp_path).lock():
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        holder.communicate()


def test_the_lock_is_refused_within_one_process_too(tmp_path):
    with Run(tmp_path).lock(), pytest.raises(LockedError), Run(tmp_path).lock():
        pass
    with Run(tmp_path).lock():
        pass


def test_only_temporaries_of_dead_processes_are_removed(tmp_path):
    run = make_run(tmp_path)
    dead = [
        tmp_path / ".tmp-4194999-a",
        *(tmp_path / folder / ".tmp-4194999-b.png" for folder in ("images", "evaluation", "checkpoints")),
        tmp_path / "samples" / ".tmp-4194999-normal" / "grid.png",
        tmp_path / "samples" / "normal" / ".tmp-4194999-grid.png",
        tmp_path / "samples" / "normal" / f".tmp-{'9' * 30}-x",
    ]
    others = [
        tmp_path / f".tmp-{os.getppid()}-a",
        tmp_path / ".tmp-notes",
        tmp_path / "images" / ".tmp-x-4194999",
        tmp_path / "mine" / ".tmp-4194999-draft",
        tmp_path / "images" / ".old-4194999-",
    ]
    for path in (*dead, *others):
        write_atomic(path, "")
    with run.lock():
        assert [path for path in dead if path.exists()] == []
        assert [path for path in others if not path.exists()] == []


def test_a_folder_that_was_moved_aside_comes_back(tmp_path):
    run = make_run(tmp_path)
    old = tmp_path / "samples" / ".old-4194999-hmc"
    write_atomic(old / "samples.safetensors", "old")
    run.remove_temporaries()
    assert (run.samples("hmc") / "samples.safetensors").read_text() == "old"
    write_atomic(old / "samples.safetensors", "older")
    run.remove_temporaries()
    assert (run.samples("hmc") / "samples.safetensors").read_text() == "old"
    assert not old.exists()


# --- who is alive ---


def test_a_run_whose_process_was_killed_has_died(tmp_path):
    run = make_run(tmp_path)
    holder = python(HOLD, tmp_path)
    assert holder.stdout.readline() == "locked\n"
    run.set_status("running", epoch=33)
    assert run.read_status()["status"] == "running"
    holder.kill()
    holder.communicate()
    assert (run.read_status()["status"], run.read_status()["epoch"]) == ("died", 33)
    assert read_json(run.status)["status"] == "running"
    with run.lock():
        assert run.read_status()["status"] == "running"
    run.set_status("done")
    assert run.read_status()["status"] == "done"
    run.set_status("running")
    (tmp_path / ".lock").unlink()  # a training of the library, which takes none
    assert run.read_status()["status"] == "running"


def test_asking_for_the_status_does_not_keep_a_training_out(tmp_path, monkeypatch):
    import fcntl

    flock, asked = fcntl.flock, []

    def busy_at_first(descriptor: int, operation: int) -> None:
        asked.append(operation)
        if len(asked) < 3:
            raise BlockingIOError
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", busy_at_first)
    with Run(tmp_path).lock():
        assert len(asked) == 3


# --- a stranger's or somebody else's folder ---


@pytest.mark.parametrize("names", [[], [".lock"], [".lock", "train.log"], [".lock", "config.yaml", ".tmp-1-a"]])
def test_a_start_that_died_early_can_be_repeated(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("")
    with Run(tmp_path).lock():
        pass


def test_a_run_that_ended_before_its_configuration_is_told_as_that(tmp_path):
    (tmp_path / ".lock").write_text("")
    with pytest.raises(ValueError, match="ended before its configuration was written; there is nothing in it"):
        Run.open(tmp_path)


# --- open, find ---


def test_newest_is_the_one_started_or_resumed_last(tmp_path):
    with pytest.raises(ValueError, match="expected a trained run, found none under"):
        Run.newest(tmp_path)
    early = make_run(tmp_path / "2026-01-01" / "10-vae-digits", "2026-01-01T10")
    late = make_run(tmp_path / "multirun" / "2026-01-02" / "0", "2026-01-02T10")
    assert Run.newest(tmp_path) == late
    make_run(tmp_path / "2026-01-03" / "10-vae-digits", "2026-01-03T10", weights=False)
    assert Run.newest(tmp_path) == late
    write_json(early.provenance, {"start": "2026-01-01T10", "restarts": [{"start": "2026-01-04T10"}]})
    assert Run.newest(tmp_path) == early
    assert [run.path.name for run in Run.find(tmp_path)] == ["0", "10-vae-digits", "10-vae-digits"]


def test_only_runs_without_weights_is_said(tmp_path):
    make_run(tmp_path / "a", weights=False)
    with pytest.raises(ValueError, match="only runs without a checkpoint under"):
        Run.newest(tmp_path)


def test_open_names_what_is_wrong_and_a_run_near_it(tmp_path):
    run = make_run(tmp_path / "outputs" / "10-30-00-vae-digits")
    assert Run.open(run.path) == run
    cases = {
        tmp_path / "outputs" / "10-30-00-vae-digit": "does not exist; did you mean '.*10-30-00-vae-digits'?",
        tmp_path / "outputs": "is not a run directory .*; beneath it is the run '.*10-30-00-vae-digits'",
        run.last_weights: "is a file, not a run directory; did you mean the run '.*10-30-00-vae-digits'",
        run.checkpoints: "is not a run directory .*; did you mean the run '.*10-30-00-vae-digits'",
        tmp_path / "nothing" / "here": "does not exist$",
    }
    for path, sentence in cases.items():
        with pytest.raises(ValueError, match=rf"^run: '{path}' {sentence}"):
            Run.open(path)


@pytest.mark.parametrize("name", ["config.yaml", "status.json", "provenance.json"])
def test_open_names_the_missing_file(tmp_path, name):
    run = make_run(tmp_path)
    (run.path / name).unlink()
    with pytest.raises(ValueError, match=f"is damaged: {name} is missing"):
        Run.open(run.path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"\x80\x04\x95.", b"[" * 100_000])
@pytest.mark.parametrize("name", ["status.json", "provenance.json"])
def test_open_names_the_damaged_file(tmp_path, name, content):
    run = make_run(tmp_path)
    (run.path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}.*(damaged|JSON object)|damaged: {name}") as caught:
        Run.open(run.path)
    assert "\n" not in str(caught.value)


def test_the_search_for_a_near_name_is_bounded(tmp_path, monkeypatch):
    make_run(tmp_path / "a" / "b" / "10-30-00-vae-digits")
    monkeypatch.setattr(run_module, "MAX_FOLDERS", 2)
    with pytest.raises(ValueError, match=r"does not exist$"):
        Run.open(tmp_path / "10-30-00-vae-digit")
    monkeypatch.setattr(run_module, "MAX_FOLDERS", 4)
    with pytest.raises(ValueError, match="did you mean"):
        Run.open(tmp_path / "10-30-00-vae-digit")
