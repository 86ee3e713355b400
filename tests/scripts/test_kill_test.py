"""Killed at any instant, a run continues to the same bytes; the long form is scripts/kill_test.py itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_test.py"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vae", "aae", "rae_l2"])  # one loss, parts in turn, parts at once
def test_killed_runs_end_with_the_same_bytes(model):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", "20", "--models", model], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 runs differ" in done.stdout
