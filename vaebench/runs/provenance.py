"""Where a run came from: command, code, packages, hardware, seed, times. Imports nothing heavy to find out."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from vaebench.runs.run import Run, now, read_json, write_json

PACKAGES = ("torch", "torchvision", "numpy", "hydra-core", "omegaconf", "safetensors", "scikit-learn", "pillow")


def describe(
    *, seed: int | None = None, overrides: Sequence[str] = (), data: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """One start of one command.

    Args:
        seed: The run's seed.
        overrides: What the user typed after the verb.
        data: What the data set says of itself.
    """
    package = Path(__file__).resolve().parents[1]
    return {
        "command": command(),
        "overrides": list(overrides),
        "working_directory": os.getcwd(),
        "seed": seed,
        "data": None if data is None else dict(data),
        "start": now(),
        "end": None,
        "vaebench": _version("vaebench"),
        "git": _git(package.parent),
        "working_directory_git": _git(Path.cwd().resolve()),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "process": os.getpid(),
        "cpu_count": os.cpu_count(),
        "usable_cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": gpus(),
    }


def record_start(
    run: Run, *, seed: int | None = None, overrides: Sequence[str] = (), data: Mapping[str, Any] | None = None
) -> None:
    """Write provenance.json; a resumed run keeps its first record and gains an entry under `restarts`."""
    record = describe(seed=seed, overrides=overrides, data=data)
    if run.provenance.is_file():
        first = dict(read_json(run.provenance))
        first["restarts"] = [*first.get("restarts", []), record]
        write_json(run.provenance, first)
    else:
        write_json(run.provenance, {**record, "restarts": []})


def record_end(run: Run) -> None:
    """Put the time of the end, and the accelerators that were used, into the newest start's record."""
    record = dict(read_json(run.provenance))
    newest = record["restarts"][-1] if record.get("restarts") else record
    newest["end"] = now()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        newest["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    write_json(run.provenance, record)


def command() -> str:
    """The command as typed."""
    program, arguments = sys.argv[0], sys.argv[1:]
    program = program if program.startswith("vaebench ") else Path(program).name
    return " ".join([program, *map(shlex.quote, arguments)])


def gpus() -> list[str]:
    """Names of the NVIDIA GPUs that the driver shows; asking torch would start CUDA in this process."""
    names = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith("Model:"):
                names.append(line.partition(":")[2].strip())
    return names


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path) -> dict[str, Any] | None:
    """Commit and dirtiness of the checkout whose top folder this is; None where it is no checkout."""
    top, commit = _ask_git(folder, "rev-parse", "--show-toplevel"), _ask_git(folder, "rev-parse", "HEAD")
    if top is None or commit is None or Path(top).resolve() != folder:
        return None
    return {"commit": commit, "is_dirty": bool(_ask_git(folder, "status", "--porcelain"))}


def _ask_git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
