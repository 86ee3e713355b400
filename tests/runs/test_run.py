from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vaebench.runs import run as run_module
from vaebench.runs.run import LockedError, Run, write_atomic, write_json


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


def test_metrics_survive_a_cut_last_line_and_report_other_damage(tmp_path):
    run = Run(tmp_path)
    assert run.read_metrics() == []
    run.append_metrics([{"step": 1, "loss": 2.5}, {"step": 2}])
    offset = run.metrics_offset()
    run.append_metrics([{"step": 3}])
    with open(run.metrics, "ab") as file:
        file.write(b'{"step": 4, "lo')
    assert [row["step"] for row in run.read_metrics()] == [1, 2, 3]
    run.truncate_metrics(offset)
    run.append_metrics([{"step": 3}])
    assert [row["step"] for row in run.read_metrics()] == [1, 2, 3]
    with pytest.raises(ValueError, match=r"metrics.jsonl' is damaged: it holds \d+ bytes, and held 999"):
        run.truncate_metrics(999)
    run.metrics.write_bytes(b'{"step": 1}\n\xff\n{"step": 2}\n')
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        run.read_metrics()


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


def test_temporaries_of_a_live_process_are_left_alone(tmp_path):
    alive, dead = tmp_path / f".tmp-{os.getppid()}-a", tmp_path / "images" / ".tmp-4194999-b.png"
    write_atomic(alive, "")
    write_atomic(dead, "")
    with Run(tmp_path).lock():
        assert alive.exists()
        assert not dead.exists()


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
