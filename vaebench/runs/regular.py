"""Reading and opening files that a stranger may have made: regular files of bounded size, and nothing else.

A link is not followed, a pipe not waited for, a device not read without end.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp-"
MAX_BYTES = 2**24  # per file that is read whole
KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def refuse_strange_entries(folder: Path, key: str) -> None:
    """Refuse a folder in which an entry is neither a regular file nor a folder, nor a link to one of its own.

    Args:
        folder: A run directory; it may be a link itself.
        key: Begins the sentence.

    Raises:
        ValueError: the first such entry.
    """
    top, waiting = os.path.realpath(folder), [os.fspath(folder)]
    while waiting:
        place = waiting.pop()
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError:  # not listed, so not read either
            continue
        for entry in entries:
            if entry.is_symlink():
                target = os.path.realpath(entry.path)
                if target != top and target.startswith(os.path.join(top, "")):
                    continue
                problem = f"the link '{os.path.relpath(entry.path, folder)}', which leads out of it"
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
                continue
            elif entry.is_file(follow_symlinks=False):
                continue
            else:
                problem = f"'{os.path.relpath(entry.path, folder)}', which is {_kind(os.lstat(entry.path).st_mode)}"
            raise ValueError(f"{key}: '{folder}' holds {problem}; expected files and folders: remove it first")


@contextlib.contextmanager
def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> Iterator[Any]:
    """Open a regular file as a binary, unbuffered stream; links are not followed and pipes not waited for.

    Args:
        path: The file.
        flags: As for `os.open`.

    Raises:
        OSError: it cannot be opened, or is something else; the reason is a clause such as "it is a link".
    """
    descriptor = open_descriptor(path, flags)
    mode = {os.O_RDONLY: "rb", os.O_WRONLY: "wb", os.O_RDWR: "rb+"}[flags & os.O_ACCMODE]
    with open(descriptor, mode, buffering=0) as file:
        yield file


def open_descriptor(path: str | os.PathLike[str], flags: int) -> int:
    """Return a file descriptor, with the care of `open_regular`. A file with several names is copied before writing."""
    careful = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    if flags & os.O_ACCMODE != os.O_RDONLY:
        _unshare(Path(path))
    try:
        descriptor = os.open(path, flags | careful, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EISDIR) or not os.path.lexists(path):
            raise
        raise OSError(error.errno, f"it is {_kind(os.lstat(path).st_mode)}", os.fspath(path)) from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"it is {_kind(mode)}", os.fspath(path))
    return descriptor


def read_bytes(path: str | os.PathLike[str], most: int = MAX_BYTES) -> bytes:
    """Read a regular file whole.

    Args:
        path: The file.
        most: Bytes that it may hold.

    Raises:
        ValueError: it is missing, too large, something else than a file, or cannot be read; the sentence names it.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise ValueError(f"'{path}' is damaged: it holds {size:,} bytes, more than the {most:,} that are read")
            return bytes(file.read(most))
    except FileNotFoundError:
        raise ValueError(f"'{path}' is missing") from None
    except OSError as error:
        raise ValueError(f"'{path}' cannot be read: {error.strerror}") from None


def check_readable(path: str | os.PathLike[str]) -> None:
    """Refuse what another library could not open as an ordinary file.

    Raises:
        ValueError: as `read_bytes`, but for the size.
    """
    try:
        with open_regular(path):
            pass
    except FileNotFoundError:
        raise ValueError(f"'{path}' is missing") from None
    except OSError as error:
        raise ValueError(f"'{path}' cannot be read: {error.strerror}") from None


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the checksum of a regular file, read in pieces."""
    checksum = hashlib.sha256()
    with open_regular(path) as file:
        while piece := file.read(2**20):
            checksum.update(piece)
    return checksum.hexdigest()


def _unshare(path: Path) -> None:
    """Give a file that is written in place, and has other names elsewhere, a content of its own."""
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(path)
        if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
            temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
            temporary.unlink(missing_ok=True)
            shutil.copyfile(path, temporary, follow_symlinks=False)
            os.replace(temporary, path)


def _kind(mode: int) -> str:
    return KINDS.get(stat.S_IFMT(mode), "no regular file")
