"""Whether a Slurm of one node can be started here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm_dev.sh"
HAS_SLURM = all(shutil.which(name) for name in ("sbatch", "slurmctld", "munged")) and os.geteuid() == 0
needs_slurm = pytest.mark.skipif(not HAS_SLURM, reason="needs Slurm's programs and root: scripts/slurm_dev.sh install")
