"""What the README shows is typed into bash and zsh as it stands, and our parser takes the words that they pass on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import command as command  # the fixture
from tests.cli.test_paths import run_at
from tests.commands.test_sample import make_run

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
PROGRAMS = ("vaebench", "pip", "python", "torchrun")


def typed(shell: str, block: str, folder: Path) -> list[list[str]]:
    """The words of each `vaebench` in a block, as the shell passes them to a program that writes them down."""
    programs, words = folder / "programs", folder / "words"
    programs.mkdir(exist_ok=True)
    for name in PROGRAMS:
        note = f"printf '%s\\0' \"$@\" >> {words}; printf '\\036' >> {words}\n" if name == "vaebench" else ""
        (programs / name).write_text(f"#!/bin/sh\n{note}")
        (programs / name).chmod(0o755)
    words.write_text("")
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(folder), "REPOSITORY": "x"}
    plain = ["--norc"] if shell == "bash" else ["-f", "-o", "no_interactive_comments"]
    done = subprocess.run(
        [shell, *plain, "-e", "-c", block], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, ""), block
    return [call.split("\0")[:-1] for call in words.read_text().split("\036")[:-1]]


def set_up(folder: Path) -> None:
    """What the README's commands find: a trained run, a sweep, an experiment."""
    run_at(folder / "outputs" / "first")
    run_at(folder / "outputs" / "multirun" / "0")
    run_at(folder / "outputs" / "2026-11-26" / "12-00-00")
    (folder / "mine" / "experiment").mkdir(parents=True)
    wide = re.search(r"(?m)^    # mine/experiment/wide.yaml.*\n((?:    .*\n)+)", README)
    assert wide is not None
    (folder / "mine" / "experiment" / "wide.yaml").write_text(re.sub("(?m)^    ", "", wide[1]))


def test_no_block_needs_what_an_interactive_shell_lacks():
    for block in BLOCKS:
        assert "#" not in block  # zsh has no comments where one types
        assert not re.search(r"<\w+>", block)  # a placeholder is a redirection


def calls(shell: str, folder: Path) -> list[list[str]]:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    return [words for block in BLOCKS[2:] for words in typed(shell, block, folder)]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_every_block_is_what_it_looks_like(shell, command, tmp_path, monkeypatch):
    set_up(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    stored = "\n".join(
        ["seed: 0", *(f"{group}:\n  _target_: vaebench.{path}" for group, path in STORED.items()), "resume: null"]
    )
    (tmp_path / "outputs" / "first" / "config.yaml").write_text(stored + "\n")
    given = calls(shell, tmp_path)
    assert len(given) > 15
    if shell == "zsh":  # which leaves a tilde after '=' as it is
        of_bash = calls("bash", tmp_path)
        given = [words for words in given if words not in of_bash]
    for words in given:
        if "my_model" in " ".join(words):
            continue
        seen = []
        answer = command(*words, task=seen.append)
        assert answer.code == 0, (words, answer.err)
        assert seen or words[0] == "-sc"


STORED = {
    "model": "models.vae.VAE\n  latent_dim: 3",
    "trainer": "trainers.base.BaseTrainer",
    "dataset": "data.digits.Digits",
    "hardware": "hardware.device.Hardware",
}


def test_a_run_is_loaded_as_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(Path("outputs/first"))
    (block,) = [found for found in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "load_run" in found]
    names: dict = {}
    exec(block, names)
    assert names["pictures"].shape == (16, 1, 8, 8)
    assert names["latents"].shape == (180, 3)


def test_what_it_links_to_is_there():
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"(?m)^##+ (.*)$", README)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", README)) <= anchors
    for path in re.findall(r"\]\((scripts/[^)]+)\)", README):
        assert (ROOT / path).is_file()
