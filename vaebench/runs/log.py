"""The log of a run, in its own file train.log."""

from __future__ import annotations

import logging
import os
from io import TextIOWrapper
from pathlib import Path

from vaebench.messages import printable
from vaebench.runs.files import write_error
from vaebench.runs.regular import open_descriptor


class PrintableFormatter(logging.Formatter):
    """Formatter whose lines a terminal shows and does not obey: texts of a run may be a stranger's."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text without control characters."""
        return printable(super().format(record), "\n\t")


class RunLog(logging.FileHandler):
    """Handler that appends to a regular file and never through a link."""

    def _open(self) -> TextIOWrapper:
        descriptor = open_descriptor(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        return open(descriptor, "a", encoding="utf-8", errors="backslashreplace")


def start_log(path: Path) -> None:
    """Write what is logged from now on into a file too, instead of into the file of an earlier run.

    Raises:
        WriteError: the file cannot be written.
    """
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, RunLog)]:
        root.removeHandler(handler)
        handler.close()
    try:
        handler = RunLog(path, encoding="utf-8")
    except OSError as error:
        raise write_error(path, error) from error
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    root.addHandler(handler)
