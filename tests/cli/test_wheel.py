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
def test_runs_in_another_folder(installed, tmp_path):
    where = run(installed / "python", "-c", "import vaebench; print(vaebench.__file__)", cwd=tmp_path)
    assert where.stdout.startswith(str(installed.parent)), where
    done = run(installed / "vaebench", "train", "model=vae", "trainer.num_epochs=1", "hardware=cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
    (config,) = tmp_path.glob("outputs/*/*/config.yaml")
    assert "vaebench.models.vae.VAE" in config.read_text()


@pytest.mark.slow
def test_lists_and_takes_a_users_folder(installed, tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "small.yaml").write_text("defaults: [vae, _self_]\nlatent_dim: 2\n")
    listing = run(installed / "vaebench", "list", "models", cwd=tmp_path)
    assert "model=rhvae\t" in listing.stdout
    words = ("train", "model=small", "--config-dir", "mine", "--cfg", "job")
    assert "latent_dim: 2" in run(installed / "vaebench", *words, cwd=tmp_path).stdout
