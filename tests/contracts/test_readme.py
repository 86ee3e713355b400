"""The README lists every option, and what it shows runs."""

from __future__ import annotations

import math
import re
import runpy
from pathlib import Path

import pytest
import torch

from vaebench.energies import GaussianEnergy
from vaebench.factory.configurations import conf_dir
from vaebench.factory.groups import TABLE
from vaebench.schedules import ConstantScheduler

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


def test_a_sampler_of_ones_own_takes_ten_lines():
    """It runs as shown, and its variance on N(0, 1) is that of unadjusted Langevin dynamics, 1 / (1 - eta / 2)."""
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    block = next(block for block in blocks if "class SimpleLangevin(BaseSampler)" in block)
    names = {}
    exec(block, names)
    assert names["samples"].shape == (1000, 2)
    lines = block[block.index("class ") : block.index("\n\n\nstep_size")].splitlines()
    assert len([line for line in lines if line.strip()]) <= 10
    torch.manual_seed(0)
    energy = GaussianEnergy(mean=[0.0, 0.0], covariance=[[1.0, 0.0], [0.0, 1.0]])
    sampler = names["SimpleLangevin"](energy, ConstantScheduler(0.4), device="cpu", dtype=torch.float64)
    x = sampler.sample(torch.randn(4000, 2, dtype=torch.float64), n_steps=50)
    assert x.var().item() == pytest.approx(1.25, abs=4 * 1.25 * math.sqrt(2 / 8000))
