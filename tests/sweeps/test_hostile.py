"""Sweep directories that a stranger made: refused in one sentence, or read without doing what they ask for."""

import json
import os
import subprocess
import sys

import pytest

from vaebench.cli.main import main
from vaebench.sweeps.local import LocalPool
from vaebench.sweeps.record import FILE, Sweep, continued

STEPS = [["seed=0"], ["seed=1"]]


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = continued(tmp_path / "s", ["seed=0,1"], "local", STEPS)
    made.path.mkdir()
    made.save()
    return made


def changed(sweep, change):
    content = json.loads(sweep.file.read_text())
    change(content)
    sweep.file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c["jobs"][0].update(results=["../../elsewhere"], verb="report"), "outside of its run"),
        (lambda c: c["jobs"][0].update(results=["/etc/passwd"], verb="report"), "outside of its run"),
        (lambda c: c["jobs"][0].update(job_id="--user=root"), "no valid id"),
        (lambda c: c["jobs"][0].update(job_id="../../x"), "no valid id"),
        (lambda c: c["jobs"][1].update(verb="sample", needs=[1]), "works in no run"),
        (lambda c: c["jobs"][1].update(verb="sample", needs=[7]), "needs jobs that there are not"),
        (lambda c: c["jobs"][1].update(verb="sample", needs=[True]), "needs jobs that there are not"),
        (lambda c: c["jobs"][1].update(verb="rm"), "no verb of train"),
        (lambda c: c["jobs"][1].update(submissions=1.5), "and a count"),
        (lambda c: c["jobs"][0].update(overrides=["--config-dir=/tmp"]), "a flag among its overrides"),
        (lambda c: c.update(words=["--config-dir=/tmp"]), "got a flag"),
        (lambda c: c.update(flags=["--multirun", "x"]), "expected flags among"),
        (lambda c: c.update(place="there"), "expected one of here, local, slurm"),
        (lambda c: c.update(command="sweep"), "one of train, benchmark"),
        (lambda c: c.update(jobs={"0": 1}), "expected a list"),
        (lambda c: c.update(jobs=[7]), "damaged"),
    ],
)  # fmt: skip
def test_a_record_of_other_things_is_refused(sweep, change, sentence, capsys):
    changed(sweep, change)
    for action in ("status", "resume", "cancel", "logs"):
        assert main(["sweep", action, "s"]) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"[]", "expected a JSON object"),
        (b"{", "expected JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff\xfe", "expected JSON"),
        (b" " * (2**24 + 1), "more than the"),
    ],
    ids=["list", "cut", "deep", "bytes", "huge"],
)
def test_a_record_that_is_none_is_refused(sweep, content, sentence, capsys):
    sweep.file.write_bytes(content)
    assert main(["sweep", "status", "s"]) == 2
    assert sentence in capsys.readouterr().err


def test_a_record_that_is_a_link_or_a_pipe_is_refused(sweep, capsys):
    real = sweep.path / "real.json"
    sweep.file.rename(real)
    sweep.file.symlink_to(real)
    assert main(["sweep", "status", "s"]) == 2
    assert "it is a link" in capsys.readouterr().err
    sweep.file.unlink()
    os.mkfifo(sweep.file)
    assert main(["sweep", "status", "s"]) == 2
    assert "it is a named pipe" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["0", ".jobs"])
def test_nothing_is_written_through_a_link(sweep, tmp_path, name):
    (tmp_path / "elsewhere").mkdir()
    (sweep.path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is a link; expected a folder of the sweep's own"):
        LocalPool(1, program=("true",)).submit(sweep, sweep.jobs)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_log_is_no_way_to_another_file(sweep, tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("mine\n")
    sweep.logs.mkdir()
    (sweep.logs / "0.log").symlink_to(mine)
    with pytest.raises(OSError, match="it is a link"):
        LocalPool(1, program=("echo",)).submit(sweep, sweep.jobs[:1])
    assert mine.read_text() == "mine\n"
    assert main(["sweep", "logs", "s"]) == 0


@pytest.mark.parametrize(
    "word",
    [
        "hardware.setup=[touch ran]", "hardware.additional_parameters={wrap:x}", "hydra.launcher.setup=[touch ran]",
        "+hydra.callbacks.x._target_=os.system", "hydra/job_logging=x", "hydra.searchpath=[file:///tmp]",
        "hydra.sweeper._target_=x",
    ],
)  # fmt: skip
def test_resume_starts_no_program_that_a_record_names(sweep, word, capsys):
    changed(sweep, lambda content: content["words"].append(word))
    assert main(["sweep", "resume", "s"]) == 2
    told = capsys.readouterr().err
    assert "can start other programs; if the sweep is yours, type its command: vaebench train -m" in told


def test_cancel_ends_no_process_that_is_not_the_jobs(sweep, capsys):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "train", "seed=0"])
    try:
        for job in sweep.jobs:
            job.job_id, job.host = str(other.pid), os.uname().nodename
        sweep.save()
        assert main(["sweep", "cancel", "s"]) == 0
        assert other.poll() is None
        assert LocalPool(1).outcome(sweep, sweep.jobs[0]).name == "died"
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("verb", ["sample", "evaluate", "encode", "report"])
def test_the_sweeps_of_other_verbs_leave_foreign_folders_alone(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("text")
    key = "sort_by" if verb == "report" else "seed"
    assert main([verb, "-m", f"{key}=0,1", "hydra.sweep.dir=thesis"]) == 2
    assert "'thesis' holds other things (chapter.tex); nothing was changed" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


def test_a_directory_without_rights_is_one_sentence(sweep, capsys, monkeypatch):
    monkeypatch.setattr(Sweep, "save", _refused)
    monkeypatch.setattr("vaebench.cli.sweeper.examine", lambda question: {"mistakes": []})
    assert main(["train", "-m", "seed=0", "hardware=submitit_local", "hydra.sweep.dir=new"]) in (1, 2)
    told = capsys.readouterr().err
    assert "could not write 'new/sweep.json': Permission denied" in told
    assert "Traceback" not in told


def _refused(self):
    from vaebench.runs.files import write_error

    raise write_error(self.path / FILE, PermissionError(13, "Permission denied"))
