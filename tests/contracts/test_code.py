"""What the repository decided about its own code: lint, format, types, layers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent


def check(*command: str) -> None:
    done = subprocess.run([str(SCRIPTS / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def test_lint():
    check("ruff", "check", ".")


def test_format():
    check("ruff", "format", "--check", ".")


@pytest.mark.slow
def test_types():
    check("mypy")


def test_layers():
    check("lint-imports", "--no-logo")
