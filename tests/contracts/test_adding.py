"""The skeletons of the README's section on adding, written where a user would write them, and run."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import sys
from pathlib import Path

import pytest

from vaebench.cli.main import main

README = (Path(__file__).parents[2] / "README.md").read_text()
SKELETON = re.compile(r"`(my_\w+/\S+)`:\n\n```(?:python|yaml)\n(.*?)```", re.DOTALL)
FEW = ("dataset.num_examples=100", "trainer.num_epochs=1", "model.latent_dim=2", "hardware=cpu")


@pytest.fixture
def vaebench(tmp_path, monkeypatch):
    """The command of a user who has written the skeletons into an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("VAEBENCH_ALLOW", "my_package")
    monkeypatch.setenv("VAEBENCH_CONF", "my_conf")
    for name, content in SKELETON.findall(README):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    handlers = logging.root.handlers[:]

    def run(*words):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert main(words) == 0
        return out.getvalue()

    yield run
    for handler in set(logging.root.handlers) - set(handlers):
        handler.close()
    logging.root.handlers[:] = handlers
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]


def record(tmp_path, pattern):
    (file,) = tmp_path.glob(f"outputs/*/*/{pattern}")
    return json.loads(file.read_text())


def test_there_are_four_skeletons_of_thirty_lines_at_most():
    code = {name: content for name, content in SKELETON.findall(README) if name.endswith(".py")}
    assert sorted(code) == [f"my_package/{name}.py" for name in ("codes", "dip_vae", "posterior_width", "random_walk")]
    lengths = {name: sum(bool(line.strip()) for line in content.splitlines()) for name, content in code.items()}
    assert all(8 <= length <= 30 for length in lengths.values()), lengths


@pytest.mark.slow
def test_the_skeletons_run(vaebench, tmp_path):
    assert "model=dip_vae\tDIP-VAE-I (Kumar et al., 2018)\t" in vaebench("list", "models")
    vaebench("train", "model=dip_vae", *FEW)
    short = ("sampler.num_chains=4", "sampler.num_warmup=200", "sampler.num_draws=50", "hardware=cpu")
    vaebench("sample", "sampler=mcmc", "kernel=random_walk", "target=prior", *short)
    diagnostics = record(tmp_path, "samples/random_walk/diagnostics.json")["diagnostics"]
    assert 0.1 < diagnostics["acceptance_rate"] < 0.5  # tuned to 0.234
    vaebench("sample", "sampler=codes", "num_samples=3", "hardware=cpu")
    vaebench("sample", "sampler=codes", "num_samples=3", "hardware=cpu")
    assert record(tmp_path, "samples/codes/diagnostics.json")["fitted_sampler_reused"]
    vaebench("evaluate", "metric=[posterior_width]", "hardware=cpu")
    width = record(tmp_path, "evaluation/posterior_width.json")["values"]["posterior_width"]
    assert 0 < width["value"] < 2
    assert width["n"] == 180
