"""From an error to an exit code and one sentence: what was expected, what came, which key to change."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from vaebench.configurations import options
from vaebench.names import did_you_mean

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130


class Mistake(ValueError):
    """A mistake in the command line; its text is the sentence to show."""


def explain(error: Exception, verb: str, folders: Sequence[Path], *, started: bool) -> tuple[int, str]:
    """Say in one sentence what went wrong.

    Args:
        error: What was raised.
        verb: The verb that was running.
        folders: The folders with configurations.
        started: Whether the task itself was running, rather than Hydra preparing it.

    Returns: the exit code and the sentence.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return MISTAKE, _configuration(error, verb, folders)
    system = error if isinstance(error, OSError) else error.__cause__
    if not started and isinstance(system, OSError):
        return _directory(system)
    if isinstance(error, ValueError):
        return MISTAKE, one_line(error)
    kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
    return FAILED, f"failed: {kind}{one_line(error)}"


def one_line(error: object) -> str:
    """Return an error's text on one line."""
    return " ".join(str(error).split())


def _directory(error: OSError) -> tuple[int, str]:
    """The run directory or its log could not be made."""
    where = f" '{error.filename}'" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FAILED, f"failed: no space left for the run directory{where}; free some, or change hydra.run.dir"
    reason = error.strerror or one_line(error)
    return MISTAKE, f"hydra.run.dir: cannot write{where}: {reason}; expected a directory that can be written"


def _configuration(error: Exception, verb: str, folders: Sequence[Path]) -> str:
    from hydra.errors import MissingConfigException, OverrideParseException

    if isinstance(error, OverrideParseException):
        return f"cannot read '{error.override}': {one_line(error.message).partition(' See https')[0]}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing(error.missing_cfg_file, error.options or (), folders)
    ...
    return one_line(error)
