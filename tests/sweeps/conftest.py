"""A Slurm of one node, on the loopback address, for one file of tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.sweeps.development_cluster import SCRIPT


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Point the environment at a cluster of this process's own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = {
        "SLURM_DEV_DIR": str(tmp_path_factory.mktemp("slurm")),
        "SLURM_DEV_PORT": str(17_017 + 10 * worker),
        "SLURM_DEV_CPUS": "2",
    }
    before = dict(os.environ)
    os.environ.update(own)
    try:
        # Its daemons keep what they inherit, so the output goes to files and not into a pipe that would never end.
        with open(Path(own["SLURM_DEV_DIR"]) / "start.log", "w") as log:
            subprocess.run(["bash", str(SCRIPT), "start"], check=True, timeout=120, stdout=log, stderr=log)
        lines = subprocess.run(["bash", str(SCRIPT), "env"], check=True, capture_output=True, text=True).stdout.strip()
        shell = subprocess.run(
            ["bash", "-c", f'{lines} && printf "%s\\n%s" "$SLURM_CONF" "$PATH"'], capture_output=True, text=True
        )
        os.environ["SLURM_CONF"], os.environ["PATH"] = shell.stdout.split("\n")
        yield
    finally:
        subprocess.run(["bash", str(SCRIPT), "stop"], timeout=120, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.environ.clear()
        os.environ.update(before)
