"""Atomic writes and strict JSON: the files of a run directory.

Whatever is written appears whole or not at all, and never through a link.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vaebench.runs.regular import TEMPORARY, open_regular, read_bytes

ASIDE = ".old-"  # a folder moved aside while its replacement takes its place
# Folders that must not be moved while they are written to: path -> device and inode.
_held_folders: dict[Path, tuple[int, int]] = {}


class WriteError(OSError):
    """A file of a run could not be written; whatever stood there before is untouched."""


def write_atomic(path: str | os.PathLike[str], content: bytes | str | Callable[[Path], object]) -> None:
    """Write a file so that every reader, and every crash, sees the old content or the new one.

    Args:
        path: The file; missing folders above it are made. A link in its place is replaced, not followed.
        content: Bytes, text (UTF-8), or a function that writes the file whose path it is given (same suffix).

    Raises:
        WriteError: no space, no permission, or the run directory is gone; the temporary file is removed and the
            previous file is as it was.
    """
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        _refuse_lost_folder(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)  # left by an earlier process with this pid, or a planted link
        if callable(content):
            content(temporary)
        else:
            with open(temporary, "xb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
        with open_regular(temporary, os.O_RDWR) as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _fsync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if not isinstance(error, WriteError) and (isinstance(error, OSError) or _system_error_number(error)):
            raise write_error(path, error) from error
        raise


@contextlib.contextmanager
def replaced_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Context that yields an empty folder to fill; at its end it takes the place of `folder` in one step.

    Files that belong together change together: killed at any moment, `folder` holds the old files or the new ones.
    (Where the system cannot exchange two folders, it may be missing for a moment; `remove_temporaries` restores it.)

    Raises:
        WriteError: the folder could not be put in place; the previous one is as it was.
    """
    folder = Path(folder)
    staging = folder.with_name(f"{TEMPORARY}{os.getpid()}-{folder.name}")
    try:
        _refuse_lost_folder(folder)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        yield staging
        _fsync_folder(staging)
        if not _exchange(staging, folder):
            aside = folder.with_name(f"{ASIDE}{os.getpid()}-{folder.name}")
            if os.path.lexists(folder):
                os.replace(folder, aside)
            os.replace(staging, folder)
            shutil.rmtree(aside, ignore_errors=True)
        _fsync_folder(folder.parent)
    except WriteError:
        raise
    except OSError as error:
        raise write_error(folder, error) from error
    finally:
        if staging.is_symlink() or staging.is_file():  # the folder replaced a file or a link
            staging.unlink()
        shutil.rmtree(staging, ignore_errors=True)


def remove_temporaries(folder: Path) -> None:
    """Remove from one folder what killed processes left behind while they wrote, by the names that this program gives.

    A folder that was moved aside, and whose successor did not come, is moved back.
    """
    with contextlib.suppress(OSError):
        entries = [entry for entry in os.scandir(folder) if re.match(r"\.(tmp|old)-\d+-.", entry.name)]
        for entry in entries:
            kind, process, name = entry.name.split("-", 2)
            if int(process[:20]) != os.getpid() and _is_alive(int(process[:20])):
                continue
            with contextlib.suppress(OSError):
                if f"{kind}-" == ASIDE and not os.path.lexists(folder / name):
                    os.replace(entry.path, folder / name)
                elif entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)


@contextlib.contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Context in which nothing is written beneath a folder that was moved away or removed: it is not made again."""
    found = os.stat(folder)
    place = folder.absolute()
    _held_folders[place] = (found.st_dev, found.st_ino)
    try:
        yield
    finally:
        _held_folders.pop(place, None)


def refuse_unwritable(folder: str | os.PathLike[str], key: str) -> None:
    """Fail early if results cannot be written.

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
        ValueError: the file is missing, damaged, too large or no file; the sentence names it.
    """
    content = read_bytes(path)
    try:
        return parse_json(content)
    except ValueError as error:
        raise ValueError(f"'{path}' is damaged: expected JSON ({error})") from None


def parse_json(content: bytes) -> Any:
    """Parse JSON (UTF-8).

    Raises:
        ValueError: it is not JSON, nested too deeply, or holds a number of thousands of digits.
    """
    try:
        return json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_error(path: Path, error: BaseException) -> WriteError:
    """The sentence for a write that failed."""
    number = _system_error_number(error)
    own = error.strerror if isinstance(error, OSError) and str(error.strerror).startswith("it is ") else None
    reason = own or (os.strerror(number) if number else str(error))
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
    if hasattr(value, "tolist"):  # arrays and tensors, also scalars
        return plain_json(value.tolist())
    raise TypeError(f"expected a value that JSON can hold, got {type(value).__name__}")


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot fsync a folder
            raise
    finally:
        os.close(descriptor)


def _refuse_lost_folder(path: Path) -> None:
    for folder, identity in _held_folders.items():
        if path.absolute().is_relative_to(folder):
            try:
                found = os.stat(folder)
            except OSError:
                found = None
            if found is None or (found.st_dev, found.st_ino) != identity:
                raise WriteError(f"could not write '{path}': the directory '{folder}' was moved away or removed")


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two entries of the file system in one step; return whether the system can."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0)


def _system_error_number(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    # safetensors reports an OSError as text, with the number in it.
    found = re.search(r"(?:os error|code:) (\d+)", str(error)) if type(error).__name__ == "SafetensorError" else None
    return int(found[1]) if found else None


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
