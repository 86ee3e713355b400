"""A working folder whose files are named like modules of Python."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 cannot leave the working folder out")
def test_a_file_that_is_named_like_a_module_is_not_run(tmp_path):
    for name in ("queue", "random", "torch", "json"):
        (tmp_path / f"{name}.py").write_text("open('was_run', 'w')\nraise SystemExit('not the module')\n")
    path = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    command = [
        str(Path(sys.executable).with_name("vaebench")),
        "benchmark",
        "sampler=normal",
    ]  # a process checks its jobs
    done = subprocess.run(
        [*command, "sweep.dry_run=true", "hydra.sweep.dir=sweep"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "waiting" in done.stdout
    assert not (tmp_path / "was_run").exists()
