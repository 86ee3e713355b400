"""Where a run came from: command, code, packages, hardware, seed, times. Imports nothing heavy to find out."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from importlib import metadata
from pathlib import Path
from typing import Any

from vaebench.runs.regular import read_bytes
from vaebench.runs.run import Run, now, read_json, write_json

_typed: ContextVar[Sequence[str]] = ContextVar("typed", default=())
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
        "working_directory_commit": _commit_in_files(Path.cwd().resolve()),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "process": os.getpid(),
        "slurm": _slurm(os.environ),
        "cpu_count": os.cpu_count(),
        "usable_cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": gpus(),
    }


def record_start(
    run: Run,
    *,
    seed: int | None = None,
    overrides: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    init_from: Mapping[str, Any] | None = None,
) -> None:
    """Write provenance.json; a resumed run keeps its first record and gains an entry under `restarts`.

    Args:
        run: The run.
        seed: As for `describe`.
        overrides: Likewise.
        data: Likewise.
        model: What the reports must know of the model besides its configuration.
        init_from: The weights that the training starts from, where they are another run's.
    """
    record = describe(seed=seed, overrides=overrides, data=data)
    if model is not None:
        record["model"] = dict(model)
    if init_from is not None:
        record["init_from"] = dict(init_from)
    if run.provenance.is_file():
        first = read(run)
        first["restarts"] = [*first["restarts"], record]
        write_json(run.provenance, first)
    else:
        write_json(run.provenance, {**record, "restarts": []})


def read(run: Run) -> dict[str, Any]:
    """Read provenance.json.

    Raises:
        ValueError: it is missing, or not of the form that `record_start` gives it.
    """
    record = read_json(run.provenance)
    restarts = record.get("restarts", []) if isinstance(record, dict) else None
    if not isinstance(restarts, list) or not all(isinstance(restart, dict) for restart in restarts):
        raise ValueError(f"'{run.provenance}' is damaged: expected a JSON object with a list of restarts")
    return {**record, "restarts": restarts}


def record_end(run: Run) -> None:
    """Put the time of the end, and the accelerators that were used, into the newest start's record."""
    record = read(run)
    newest = record["restarts"][-1] if record["restarts"] else record
    newest["end"] = now()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        newest["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    write_json(run.provenance, record)


@contextlib.contextmanager
def typed(words: Sequence[str]) -> Iterator[None]:
    """Let `command` return these words, which Hydra gets in another order and with paths quoted for its grammar.

    Args:
        words: The program and what follows it.
    """
    token = _typed.set(words)
    try:
        yield
    finally:
        _typed.reset(token)


def command() -> str:
    """The command as typed."""
    program, *arguments = _typed.get() or sys.argv
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


def num_requeues(environment: Mapping[str, str]) -> int:
    """How often Slurm has put this job back into the queue, for whatever reason; 0 outside of a cluster."""
    count = environment.get("SLURM_RESTART_COUNT", "")
    return int(count) if count.isdigit() else 0


def _slurm(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """The job of a cluster that this process belongs to."""
    if "SLURM_JOB_ID" not in environment:
        return None
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    job = environment["SLURM_JOB_ID"] if array is None else f"{array}_{task}"
    return {"job": job, "partition": environment.get("SLURM_JOB_PARTITION"), "requeues": num_requeues(environment)}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path) -> dict[str, Any] | None:
    """Commit and dirtiness of the checkout whose top folder this is; None if it is not a checkout."""
    if not (folder / ".git").exists():
        return None
    top, commit = _ask_git(folder, "rev-parse", "--show-toplevel"), _ask_git(folder, "rev-parse", "HEAD")
    if top is None or commit is None or Path(top).resolve() != folder:
        return None
    return {"commit": commit, "is_dirty": bool(_ask_git(folder, "status", "--porcelain"))}


def _ask_git(folder: Path, *arguments: str) -> str | None:
    """Ask git, with nothing switched on that a configuration could make it start."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    environment["GIT_CEILING_DIRECTORIES"] = str(folder.parent)
    settings = ("core.fsmonitor=false", f"core.hooksPath={os.devnull}", "safe.directory=*")
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *(word for setting in settings for word in ("-c", setting)), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            stdin=subprocess.DEVNULL,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _commit_in_files(folder: Path) -> str | None:
    """Commit of the checkout that holds a folder, read from its files: no program runs in a folder of anybody else's.

    Returns: None where there is none, or where the files hold something else.
    """
    top = next((place for place in (folder, *folder.parents) if (place / ".git").is_dir()), None)
    if top is None:
        return None
    try:
        head = read_bytes(top / ".git" / "HEAD", 1_000).decode("ascii").strip()
        name = head.removeprefix("ref: ")
        if name != head and not re.fullmatch(r"refs/heads/[\w./-]+", name, re.ASCII):
            return None
        if name != head and ".." not in name:
            loose = top / ".git" / name
            head = read_bytes(loose, 1_000).decode("ascii").strip() if loose.is_file() else _packed(top, name)
    except ValueError:  # UnicodeDecodeError among them
        return None
    return head if re.fullmatch(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", head) else None


def _packed(top: Path, name: str) -> str:
    lines = read_bytes(top / ".git" / "packed-refs").decode("utf-8").splitlines()
    return next((line.partition(" ")[0] for line in lines if line.endswith(f" {name}")), "")
