"""Killed around each rename of a checkpoint, a run continues to the same bytes; the script also kills at random."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_test.py"
PATH = {"PYTHONPATH": str(SCRIPT.parents[1])}


@pytest.mark.slow
def test_killed_runs_end_with_the_same_bytes():
    models = "vae,aae,rae_l2"  # one loss, parts in turn, parts at once
    command = [sys.executable, str(SCRIPT), "--models", models]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **PATH})
    assert done.returncode == 0, done.stdout + done.stderr
    for line in ("vae: 12", "aae: 10", "rae_l2: 10"):  # pictures are those of the first alone
        assert f"{line} chosen moments, 0 mistakes\n" in done.stdout
