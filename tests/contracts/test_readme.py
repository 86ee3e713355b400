"""The README lists every option, and what it shows runs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import torch

from vaebench.factory.configurations import conf_dir
from vaebench.factory.groups import TABLE

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
LISTS = runpy.run_path(str(ROOT / "scripts" / "readme_lists.py"))


def test_every_group_is_listed_and_every_list_is_current():
    groups = {group.title for group in TABLE if any((conf_dir() / group.name).glob("*.yaml"))}
    assert groups - {"experiments"} <= LISTS["listed"](README)
    assert LISTS["current"](README) == README, "run python scripts/readme_lists.py"


def test_a_list_that_is_not_current_would_be_seen():
    row = next(line for line in README.splitlines(keepends=True) if line.startswith("| `rhvae` | Riem"))
    assert LISTS["current"](README.replace(row, "")) == README


def test_the_example_of_own_networks_runs():
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names = {"__name__": "example"}
    exec(next(block for block in blocks if "encoder=Encoder()" in block), names)
    assert names["model"].encode(torch.zeros(2, 1, 8, 8)).mean.shape == (2, 8)


def test_the_example_of_the_library_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    block = next(block for block in blocks if "BaseTrainer" in block)
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


def test_the_example_of_a_trained_energy_runs():
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names = {}
    exec(next(block for block in blocks if "ContrastiveDivergence" in block), names)
    assert names["negative_samples"].shape == (100, 2)
    assert names["loss"].isfinite()
