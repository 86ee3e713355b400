"""Writes that leave the old file or the new one, never half of either; and JSON that every reader can read."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp-"


class WriteError(OSError):
    """A file of a run could not be written; whatever stood there before is untouched."""


def write_atomic(path: str | os.PathLike[str], content: bytes | str | Callable[[Path], object]) -> None:
    """Write a file so that every reader, and every crash, sees the old content or the new one.

    Args:
        path: The file; missing folders above it are made.
        content: Bytes, text (UTF-8), or a function that writes the file whose path it is given (same suffix).

    Raises:
        WriteError: no space, no permission; the temporary file is gone and the previous file is as it was.
    """
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _fsync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) or _system_error_number(error):
            raise write_error(path, error) from error
        raise


def refuse_unwritable(folder: str | os.PathLike[str], key: str) -> None:
    """Find out before long work whether its results can be written.

    Args:
        folder: Where they will lie; it need not exist yet.
        key: The key to change, for the sentence.

    Raises:
        ValueError: the folder, or the nearest above it that exists, cannot be written, or is a file.
    """
    folder = Path(folder)
    nearest = next((place for place in (folder, *folder.parents) if place.exists()), Path())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        reason = "it cannot be written" if nearest.is_dir() else "it is a file"
        raise ValueError(f"{key}: cannot write into '{nearest}': {reason}; expected a directory that can be written")


def write_json(path: str | os.PathLike[str], content: object) -> None:
    """Write JSON atomically. Numbers that are not finite become null: NaN is not JSON."""
    write_atomic(path, json.dumps(plain_json(content), indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read JSON.

    Raises:
        ValueError: the file is missing or damaged; the sentence names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"'{path}' is missing") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"'{path}' is damaged: expected JSON ({error})") from None


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def _system_error_number(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    # safetensors wraps the system's error in one of its own, with the number in the text.
    found = re.search(r"(?:os error|code:) (\d+)", str(error)) if type(error).__name__ == "SafetensorError" else None
    return int(found[1]) if found else None


def write_error(path: Path, error: BaseException) -> WriteError:
    """The sentence for a write that failed."""
    number = _system_error_number(error)
    reason = os.strerror(number) if number else str(error)
    sentence = WriteError(f"could not write '{path}': {reason}; what was there before is unchanged")
    sentence.errno = number
    return sentence


def plain_json(value: object) -> object:
    """Plain JSON values: null for a number that is not finite, numbers for NumPy's and torch's."""
    if isinstance(value, dict):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # arrays and tensors, scalars among them
        return plain_json(value.tolist())
    raise TypeError(f"expected a value that JSON can hold, got {type(value).__name__}")
