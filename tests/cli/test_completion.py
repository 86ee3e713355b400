"""Completion, asked as a shell asks, and through bash itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_paths import run_at


@pytest.fixture
def complete(command, monkeypatch):
    def ask(line: str, shell: str = "bash") -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        answer = command("-sc", f"query={shell}")
        assert (answer.code, answer.err) == (0, "")
        return answer.out.split()

    return ask


def test_verbs(complete):
    assert complete("vaebench ") == ["train", "sample", "evaluate", "encode", "report", "benchmark", "sweep", "list"]
    assert complete("vaebench tr") == ["train"]


def test_words_after_the_verb_are_hydras(complete):
    assert {"model=vae", "model=rhvae"} <= set(complete("vaebench train model="))
    assert complete("vaebench train model=rh") == ["model=rhvae"]
    assert complete("vaebench train seed=1 -m model=rh") == ["model=rhvae"]
    assert "model.latent_dim=" in complete("vaebench train model=vae model.")
    assert {"seed=", "trainer=", "dataset="} <= set(complete("vaebench train "))
    assert complete("vaebench train model=rh", "fish") == ["model=rhvae"]


def test_only_the_groups_of_the_verb(complete):
    words = complete("vaebench evaluate ")
    assert {"metric=", "hardware=", "run=", "split="} <= set(words)
    assert not {"model=", "model/", "trainer=", "sampler=", "dataset=", "hydra/"} & set(words)


def test_runs_and_paths(complete, tmp_path):
    for name in ("first", "second"):
        run_at(tmp_path / "outputs" / name)
    (tmp_path / "data").mkdir()
    (tmp_path / "data.npz").write_text("")
    assert complete("vaebench evaluate run=") == ["run=outputs/second", "run=outputs/first"]
    assert complete("vaebench train resume=outputs/f") == ["resume=outputs/first"]
    assert complete("vaebench report outputs/s") == ["outputs/second"]
    assert complete("vaebench train dataset=arrays dataset.path=da") == ["dataset.path=data/", "dataset.path=data.npz"]
    assert complete("vaebench train dataset.root=da") == ["dataset.root=data/"]
    assert complete("vaebench train --config-dir da") == ["data/"]


def test_groups_of_list(complete):
    assert complete("vaebench list sa") == ["samplers"]


@pytest.mark.parametrize(
    "line", ["vaebench nothing ", "vaebench train model=nothing model.", "vaebench train --bogus ", ""]
)
def test_a_line_that_cannot_be_completed_is_silent(complete, line):
    complete(line)


@pytest.mark.parametrize("words", [(), ("install=tcsh",), ("query",), ("install=bash", "x")])
def test_mistakes(command, words):
    answer = command("-sc", *words)
    assert answer.code == 2
    assert "install=SHELL" in answer.err


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_through_bash(tmp_path):
    lines = """
        eval "$(vaebench -sc install=bash)"
        ask() {
            COMP_LINE="$1"; COMP_POINT=${#1}; COMP_WORDS=(vaebench)
            _vaebench; echo "${COMPREPLY[@]}"
        }
        ask "vaebench tr"
        ask "vaebench train model=rh"
        ask "vaebench train resume=outputs/"
        ask "vaebench train dataset.path=a"
        ask "vaebench train dataset.path=a\\ fold"
        ask "vaebench train dataset.root=~/da"
        complete -p vaebench
    """
    run_at(tmp_path / "outputs" / "first")
    (tmp_path / "a folder" / "x=1").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", lines], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "train",
        "model=rhvae",
        "resume=outputs/first",
        r"dataset.path=a\ folder/",
        r"dataset.path=a\ folder/",
        "dataset.root=~/data/",
        "complete -o nospace -F _vaebench vaebench",
    ], done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_the_script_for_zsh_defines_the_completion(tmp_path):
    lines = """
        autoload -Uz compinit && compinit -u
        eval "$(vaebench -sc install=zsh)"
        compadd() { print -r -- ${@[5,-1]} }
        words=(vaebench train model=rh) CURRENT=3 _vaebench
        print -r -- $_comps[vaebench]
    """
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["zsh", "-f", "-c", lines], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["model=rhvae", "_vaebench"], done.stderr
