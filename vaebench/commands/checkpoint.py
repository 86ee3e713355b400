"""Which weights a verb read, for its record."""

from __future__ import annotations

from typing import Any

from vaebench.runs.regular import sha256
from vaebench.runs.run import Run


def checkpoint_record(run: Run, name: str) -> dict[str, Any]:
    """Which weights were read, and how far the run had come; `name` is "best" or "last"."""
    path = run.best_weights if name == "best" and run.best_weights.is_file() else run.last_weights
    status = run.read_status()
    return {
        "name": path.stem,
        "sha256": sha256(path),
        "run_epoch": status.get("epoch"),
        "run_step": status.get("step"),
    }
