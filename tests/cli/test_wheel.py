"""The built wheel, installed elsewhere and run in another folder: `conf/` travels inside, `outputs/` is made there."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VAEBENCH"))}
    return subprocess.run([str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The scripts of a new environment with the wheel; it sees the dependencies of this one, but not its checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.glob("*.whl")
    made = run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    assert made.returncode == 0, made.stderr
    python = folder / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--no-cache-dir", "--disable-pip-version-check")
    done = run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    # A line with a path adds that folder alone: the .pth file of an editable install in it is not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.parent


@pytest.mark.slow
def test_every_verb_runs_in_another_folder(installed, tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "small.yaml").write_text("defaults: [rhvae, _self_]\nlatent_dim: 2\n")

    def vaebench(*words: str) -> str:
        done = run(installed / "vaebench", *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run(installed / "python", "-c", "import vaebench; print(vaebench.__file__)", cwd=tmp_path)
    assert where.stdout.startswith(str(installed.parent)), where
    assert "model=rhvae\t" in vaebench("list", "models")
    few = ("trainer.num_epochs=1", "dataset.num_examples=100", "hardware=cpu")
    vaebench("train", "model=small", "--config-dir", "mine", *few)
    vaebench("sample", "num_samples=2", "hardware=cpu")
    vaebench("evaluate", "metric=[elbo]", "hardware=cpu")
    vaebench("report")
    (config,) = tmp_path.glob("outputs/*/*/config.yaml")
    assert "vaebench.models.rhvae.RHVAE" in config.read_text()
    assert "latent_dim: 2" in config.read_text()
    written = {path.name for path in config.parent.rglob("*") if path.is_file()}
    assert {"last.safetensors", "grid.png", "elbo.json"} <= written


@pytest.mark.slow
def test_the_licence_travels_in_the_wheel(installed):
    (package,) = installed.parent.glob("lib/python*/site-packages/vaebench")
    (metadata,) = installed.parent.glob("lib/python*/site-packages/vaebench-*.dist-info")
    assert (package / "LICENSE").read_text().startswith("MIT License")
    assert (metadata / "licenses" / "vaebench" / "LICENSE").is_file()
    assert "License-Expression: MIT" in (metadata / "METADATA").read_text()
