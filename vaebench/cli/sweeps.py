"""The folder of a sweep that never began."""

from __future__ import annotations

import traceback
from pathlib import Path


def discard_folder(error: Exception) -> None:
    """Remove what Hydra's sweeper had written when it found a mistake in its jobs: a folder with a single file.

    Args:
        error: The mistake, raised before the first job began.
    """
    from hydra.plugins.sweeper import Sweeper

    for frame, _ in traceback.walk_tb(error.__traceback__):
        sweeper = frame.f_locals.get("self")
        config = getattr(sweeper, "config", None) if isinstance(sweeper, Sweeper) else None
        if config is not None:
            _discard(Path(config.hydra.sweep.dir))
            return


def _discard(folder: Path) -> None:
    if [file.name for file in folder.glob("*")] != ["multirun.yaml"]:
        return
    (folder / "multirun.yaml").unlink()
    for empty in (folder, *folder.parents):
        try:
            empty.rmdir()
        except OSError:  # something else lives here
            return
