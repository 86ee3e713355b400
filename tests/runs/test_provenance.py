from __future__ import annotations

import subprocess
import sys

import numpy as np

from vaebench.runs import provenance
from vaebench.runs.run import Run, read_json


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


def test_git_is_named_with_its_dirtiness_only_at_the_top_of_a_checkout(tmp_path):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert provenance._git(tmp_path) is None
    git("init")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "f").write_text("1")
    git("add", ".")
    git("commit", "-m", "one")
    commit = git("rev-parse", "HEAD")
    assert provenance._git(tmp_path) == {"commit": commit, "is_dirty": False}
    assert provenance._git(tmp_path / "sub") is None
    (tmp_path / "sub" / "f").write_text("2")
    assert provenance._git(tmp_path) == {"commit": commit, "is_dirty": True}


def test_the_command_is_recorded_so_that_a_shell_takes_it_back(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["vaebench train", "model=vae", "metric=[elbo, iwae]"])
    assert provenance.command() == "vaebench train model=vae 'metric=[elbo, iwae]'"
