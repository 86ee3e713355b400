from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from vaebench.runs import provenance
from vaebench.runs.run import Run, read_json, write_json


def test_provenance_records_the_start_each_restart_and_the_end(tmp_path):
    run = Run(tmp_path)
    provenance.record_start(run, seed=3, overrides=["model=vae"])
    provenance.record_end(run)
    first = read_json(run.provenance)
    assert first["seed"] == 3
    assert first["overrides"] == ["model=vae"]
    assert first["start"] <= first["end"]
    assert first["packages"]["numpy"] == np.__version__
    assert first["cpu_count"] >= 1
    provenance.record_start(run, seed=3, overrides=["resume=x"])
    second = read_json(run.provenance)
    assert second["end"] == first["end"]
    assert second["restarts"][0]["end"] is None
    provenance.record_end(run)
    third = read_json(run.provenance)
    assert third["end"] == first["end"]
    assert third["restarts"][0]["end"] >= second["restarts"][0]["start"]
    assert Run(tmp_path).start == third["restarts"][0]["start"]


def git(folder, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def checkout(folder) -> str:
    git(folder, "init")
    (folder / "sub").mkdir()
    (folder / "sub" / "f").write_text("1")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "one")
    return git(folder, "rev-parse", "HEAD")


def test_git_is_named_with_its_dirtiness_only_at_the_top_of_a_checkout(tmp_path):
    assert provenance._git(tmp_path) is None
    commit = checkout(tmp_path)
    assert provenance._git(tmp_path) == {"commit": commit, "is_dirty": False}
    assert provenance._git(tmp_path / "sub") is None
    (tmp_path / "sub" / "f").write_text("2")
    assert provenance._git(tmp_path) == {"commit": commit, "is_dirty": True}


def test_git_starts_no_monitor_and_no_hook_and_heeds_no_other_configuration(tmp_path, monkeypatch):
    folder, mark = tmp_path / "checkout", tmp_path / "started"
    folder.mkdir()
    commit = checkout(folder)
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\ntouch {mark}\n")
    script.chmod(0o755)
    for hook in ("post-index-change", "fsmonitor-watchman"):
        (folder / ".git" / "hooks" / hook).write_text(script.read_text())
        (folder / ".git" / "hooks" / hook).chmod(0o755)
    git(folder, "config", "core.fsmonitor", str(script))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(script))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert provenance._git(folder) == {"commit": commit, "is_dirty": False}
    assert not mark.exists()


def test_no_program_runs_in_the_working_directory(tmp_path, monkeypatch):
    commit = checkout(tmp_path)
    asked = []
    monkeypatch.setattr(provenance.subprocess, "run", lambda command, **_: asked.append(command[2]) or subprocess)
    monkeypatch.setattr(subprocess, "returncode", 1, raising=False)
    monkeypatch.chdir(tmp_path / "sub")
    assert provenance.describe()["working_directory_commit"] == commit
    assert str(tmp_path) not in asked


def test_the_commit_is_found_in_every_form_of_head(tmp_path):
    assert provenance._commit_in_files(tmp_path) is None
    commit = checkout(tmp_path)
    head = tmp_path / ".git" / "HEAD"
    assert provenance._commit_in_files(tmp_path / "sub") == commit
    git(tmp_path, "pack-refs", "--all")
    assert provenance._commit_in_files(tmp_path) == commit
    git(tmp_path, "checkout", "--detach")
    assert provenance._commit_in_files(tmp_path) == commit
    secret = tmp_path / "secret"
    secret.write_text("a" * 40)
    for content in (
        "ref: refs/heads/../../../secret",
        f"ref: {secret}",
        "ref: refs/heads/none",
        "\x1b]0;x",
        "0" * 41,
        "ref: \xff",
    ):
        head.write_text(content, encoding="latin1")
        assert provenance._commit_in_files(tmp_path) is None
    head.unlink()
    head.symlink_to(secret)
    assert provenance._commit_in_files(tmp_path) is None


@pytest.mark.parametrize("content", [[], {"restarts": "abc"}, {"restarts": [1]}, {"start": 1, "restarts": {"a": 1}}])
def test_provenance_of_another_form_is_damage(tmp_path, content):
    run = Run(tmp_path)
    write_json(run.provenance, content)
    with pytest.raises(ValueError, match="is damaged: expected a JSON object with a list of restarts"):
        provenance.read(run)


def test_the_command_is_recorded_so_that_a_shell_takes_it_back(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["vaebench train", "model=vae", "metric=[elbo, iwae]"])
    assert provenance.command() == "vaebench train model=vae 'metric=[elbo, iwae]'"


def test_the_command_is_the_typed_one_where_hydra_gets_another(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["vaebench train", "hydra.run.dir='out puts/a'", "model=vae"])
    with provenance.typed(["vaebench train", "model=vae", "hydra.run.dir=out puts/a"]):
        assert provenance.command() == "vaebench train model=vae 'hydra.run.dir=out puts/a'"
    assert "model=vae" in provenance.command().split()[-1]


def test_a_job_of_a_cluster_and_its_requeues_are_recorded(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    assert provenance.describe()["slurm"] is None
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert provenance.describe()["slurm"]["requeues"] == 0
    for name, value in {
        "ARRAY_JOB_ID": "11",
        "ARRAY_TASK_ID": "3",
        "RESTART_COUNT": "2",
        "JOB_PARTITION": "gpu",
    }.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert provenance.describe()["slurm"] == {"job": "11_3", "partition": "gpu", "requeues": 2}
