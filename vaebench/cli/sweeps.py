"""The folders of sweeps: those of verbs that write elsewhere, and those of sweeps that never began."""

from __future__ import annotations

import contextlib
import traceback
from datetime import datetime
from pathlib import Path

from vaebench.cli.errors import CommandError


def new_folder() -> str:
    """Return a folder for the sweep of a verb whose jobs write into the runs that they read."""
    return f"outputs/multirun/{datetime.now():%Y-%m-%d/%H-%M-%S-%f}"


def refuse_foreign(folder: Path) -> None:
    """Refuse a folder of other things for the sweep of a verb whose jobs write into the runs that they read.

    Raises:
        CommandError: it holds more than such a sweep leaves.
    """
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"hydra.sweep.dir: '{folder}' is a file; name a new directory")
    others = [
        entry.name
        for entry in (folder.iterdir() if folder.is_dir() else ())
        if entry.name not in ("multirun.yaml", ".submitit") and not (entry.name.isdigit() and _is_empty(entry))
    ]
    if others:
        raise CommandError(
            f"hydra.sweep.dir: '{folder}' holds other things ({', '.join(sorted(others)[:3])}); nothing was changed; "
            "results go into the runs, so leave hydra.sweep.dir out, or name a new directory"
        )


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())


def remove_empty(folder: Path) -> None:
    """Remove a sweep's folder if nothing but Hydra's own list and empty folders are in it; keep a launcher's logs."""
    for job in folder.glob("*"):
        with contextlib.suppress(OSError):
            job.rmdir()
    _discard(folder)


def discard_folder(error: Exception) -> None:
    """Remove the folder of a sweep in which Hydra's sweeper found a mistake before the first job began.

    Args:
        error: The mistake.
    """
    folder = folder_of(error)
    if folder is not None:
        _discard(folder)


def folder_of(error: Exception) -> Path | None:
    """Return the folder of the sweep in which an error was raised, or None if it was raised elsewhere."""
    from hydra.plugins.sweeper import Sweeper

    for frame, _ in traceback.walk_tb(error.__traceback__):
        sweeper = frame.f_locals.get("self")
        config = getattr(sweeper, "config", None) if isinstance(sweeper, Sweeper) else None
        if config is not None:
            return Path(config.hydra.sweep.dir)
    return None


def _discard(folder: Path) -> None:
    if {file.name for file in folder.glob("*")} - {"multirun.yaml"}:
        return
    (folder / "multirun.yaml").unlink(missing_ok=True)
    for empty in (folder, *folder.parents):
        try:
            empty.rmdir()
        except OSError:  # not a sweep
            return
