"""The README names every option, and its example runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
GROUPS = ("model", "trainer", "dataset", "sampler", "target", "metric", "callback", "hardware")
PARTS = ("model/network", "model/posterior", "model/prior", "model/likelihood")


def options():
    return [
        (group, path.stem) for group in (*GROUPS, *PARTS) for path in sorted((ROOT / "conf" / group).glob("*.yaml"))
    ]


@pytest.mark.parametrize(("group", "name"), options())
def test_every_option_is_named(group, name):
    section = README.split("## What there is")[1].split("## As a library")[0]
    assert f"`{name}`" in section or f"={name}`" in section, f"README.md does not name {group}={name}"


def test_the_example_of_the_library_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names = {}
    exec(block.replace("num_epochs=10", "num_epochs=1"), names)
    assert names["pictures"].shape == (16, 1, 8, 8)
    assert names["log_w"].shape == (100, 180)
    assert names["mean"].shape == names["log_var"].shape == (180, 8)
    assert list(tmp_path.iterdir()) == []  # without a run directory nothing is written
    assert len([line for line in block.splitlines() if line and not line.startswith("from")]) <= 10


def test_the_first_blocks_are_the_two_commands():
    first, second = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)[:2]
    assert "pip install -e .\n" in first
    assert first.endswith("vaebench train model=rhvae\n")
    assert second.endswith("-m pytest\n")
