"""Arrays in .npy and .npz files, opened without running anything that they hold."""

from __future__ import annotations

import io
import math
import struct
import tokenize
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

import numpy as np

MOST_NAMED = 6
MOST_MEMBERS = 10_000
MOST_HEADER = 10_000  # bytes; numpy's own limit, which it checks only after reading
MOST_BYTES = 2**62
ENCRYPTED = 1  # a bit of a ZIP entry's flags
NPY, ZIP = b"\x93NUMPY", b"PK"
# RuntimeError: an encrypted archive, an unknown compression, or a header nested too deeply.
_UNREADABLE = (
    *(OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, MemoryError, struct.error),
    *(tokenize.TokenError, SyntaxError, TypeError, OverflowError),  # headers, which NumPy parses as Python literals
)


@dataclass(frozen=True)
class ArrayFile:
    """The contents of a file of arrays, from its headers; no array has been read.

    Attributes:
        path: The file.
        key: The config key that named it, for messages.
        headers: Name of each array -> its shape and dtype. A .npy file has one array, named "".
        objects: Names of the arrays of Python objects, which are never read because they can run code.
    """

    path: Path
    key: str
    headers: dict[str, tuple[tuple[int, ...], np.dtype]]
    objects: tuple[str, ...] = ()

    def nbytes(self, name: str) -> int:
        """Memory that an array will take; bytes."""
        shape, dtype = self.headers[name]
        return math.prod(shape) * dtype.itemsize

    def describe(self) -> str:
        """Names, shapes and types of the first arrays, for messages."""
        arrays = [f"{name or 'one array'} {shape} {dtype}" for name, (shape, dtype) in self.headers.items()]
        more = [f"{len(arrays) - MOST_NAMED} more"] if len(arrays) > MOST_NAMED else []
        left_out = [
            f"Python objects in {', '.join(map(repr, self.objects))}, which are not read because they can run code"
        ]
        return ", ".join(arrays[:MOST_NAMED] + more + left_out * bool(self.objects)) or "no array"

    def read(self, name: str, *, mapped: bool = False) -> np.ndarray:
        """Read one array, or map the file into memory (only .npy files can be mapped).

        Raises:
            ValueError: The file is damaged.
        """
        try:
            if name == "":
                return np.load(self.path, mmap_mode="r" if mapped else None, allow_pickle=False)
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
                file.read(1)  # reading to the end makes zipfile compare the checksum
                return array
        except (*_UNREADABLE, KeyError) as error:
            raise ValueError(f"cannot read '{self.path}' {name} ({self.key}): {_reason(error)}") from error


def open_arrays(path: Path, key: str) -> ArrayFile:
    """Read the headers of a .npy or .npz file.

    Args:
        path: The file.
        key: The config key that named it, for messages.

    Raises:
        ValueError: The file is missing, damaged, of another kind, or holds nothing but Python objects.
    """
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no file"
        raise ValueError(f"expected {key} to be a .npy or .npz file, got '{path}', {kind}")
    try:
        with path.open("rb") as file:
            start = file.read(len(NPY))
            file.seek(0)
            headers = _members(path) if start.startswith(ZIP) else {"": _header(file, path.stat().st_size)}
    except _UNREADABLE as error:
        raise ValueError(f"cannot read '{path}' as a .npy or .npz file ({key}): {_reason(error)}") from error
    objects = tuple(name for name, (_, dtype) in headers.items() if dtype.hasobject)
    readable = {name: header for name, header in headers.items() if name not in objects}
    if objects and not readable:
        raise ValueError(
            f"expected numbers in '{path}' ({key}), got Python objects in "
            f"{', '.join(map(repr, filter(None, objects))) or 'its array'}, which are not read: they can run code; "
            "bring examples of unequal length, such as videos, to one length"
        )
    return ArrayFile(path, key, readable, objects)


def _members(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > MOST_MEMBERS:
            raise ValueError(f"it holds {len(members)} entries, more than {MOST_MEMBERS}")
        if any(member.filename.endswith("data.pkl") for member in members):
            raise ValueError(
                "it is a PyTorch file, a pickle that can run code; store its tensors as arrays: "
                "numpy.savez('x.npz', x=x.numpy())"
            )
        name, count = max(Counter(member.filename for member in members).items(), key=itemgetter(1), default=("", 0))
        if count > 1:
            raise ValueError(f"it has {count} entries of the name '{name}'")
        if any(member.flag_bits & ENCRYPTED for member in members):
            raise ValueError("it is encrypted")
        headers = {}
        for member in members:
            if member.filename.endswith(".npy"):
                with archive.open(member) as file:
                    headers[member.filename.removesuffix(".npy")] = _header(file, member.file_size, is_whole=False)
        return headers


def _header(file: IO[bytes], size: int, *, is_whole: bool = True) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array that should fill `size` bytes together with its header.

    An entry of an archive that ends early is refused where it is read, once its memory has been counted.
    """
    begin = file.read(8)
    if begin[:6] != NPY:
        raise ValueError(f"the magic string is {begin[:6]!r}, not that of .npy or .npz")
    version = tuple(begin[6:8])
    # Version 3 only adds UTF-8 field names to version 2, and structured arrays are refused anyway.
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format version {version} of .npy is not read")
    width = 2 if version == (1, 0) else 4
    length = file.read(width)
    (header_size,) = struct.unpack("<H" if width == 2 else "<I", length)
    if header_size > MOST_HEADER:
        raise ValueError(f"its header takes {header_size} bytes, more than {MOST_HEADER}")
    content = io.BytesIO(length + file.read(header_size))
    read: Any = np.lib.format.read_array_header_1_0 if width == 2 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(content)
    if any(type(side) is not int or side < 0 for side in shape) or math.prod(shape) * dtype.itemsize > MOST_BYTES:
        raise ValueError(f"no array has the shape {shape}")
    expected = 8 + width + header_size + math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and size > expected:
        raise ValueError(f"it holds {size - expected} bytes more than its header says")
    if is_whole and not dtype.hasobject and size < expected:
        raise ValueError(f"it ends {expected - size} bytes before its header says; it was not written or copied whole")
    return shape, dtype


def _reason(error: BaseException) -> str:
    if isinstance(error, (RecursionError, MemoryError)):
        return "its header or its size is beyond what can be read"
    return " ".join(str(error).split()) or type(error).__name__
