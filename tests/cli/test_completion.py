"""Completion, asked as a shell asks, and through bash itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def complete(command, monkeypatch):
    def ask(line: str, shell: str = "bash") -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        answer = command("-sc", f"query={shell}")
        assert (answer.code, answer.err) == (0, "")
        return answer.out.split()

    return ask


def test_verbs(complete):
    assert complete("vaebench ") == ["train", "sample", "evaluate", "report", "list"]
    assert complete("vaebench tr") == ["train"]


def test_words_after_the_verb_are_hydras(complete):
    assert {"model=vae", "model=rhvae"} <= set(complete("vaebench train model="))
    assert complete("vaebench train model=rh") == ["model=rhvae"]
    assert complete("vaebench train seed=1 -m model=rh") == ["model=rhvae"]
    assert "model.latent_dim=" in complete("vaebench train model=vae model.")
    assert {"seed=", "trainer=", "dataset="} <= set(complete("vaebench train "))
    assert complete("vaebench train model=rh", "fish") == ["model=rhvae"]


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
            COMP_LINE="$1"; COMP_POINT=${#1}; COMP_WORDS=($1); COMP_CWORD=$2
            hydra_bash_completion; echo "${COMPREPLY[@]}"
        }
        ask "vaebench tr" 1
        ask "vaebench train model=rh" 2
        complete -p vaebench
    """
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", lines], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["train", "model=rhvae"], done.stderr
    assert done.stdout.strip().endswith("-F hydra_bash_completion vaebench")
