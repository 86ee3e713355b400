"""Arrays in .npy and .npz files, opened without running anything that they hold."""

from __future__ import annotations

import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MOST_NAMED = 6
MOST_BYTES = 2**62
# RuntimeError: an archive under a password, or packed in a way that Python does not know.
_UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError)


@dataclass(frozen=True)
class ArrayFile:
    """What a file of arrays holds, from its headers; no array has been read.

    Attributes:
        path: The file.
        key: The config key that named it, for messages.
        headers: Name of each array -> its shape and dtype. A .npy file has one array, named "".
    """

    path: Path
    key: str
    headers: dict[str, tuple[tuple[int, ...], np.dtype]]

    def nbytes(self, name: str) -> int:
        """Memory that an array will take; bytes."""
        shape, dtype = self.headers[name]
        return math.prod(shape) * dtype.itemsize

    def describe(self) -> str:
        """Names, shapes and types of the first arrays, for messages."""
        arrays = [f"{name or 'one array'} {shape} {dtype}" for name, (shape, dtype) in self.headers.items()]
        more = [f"{len(arrays) - MOST_NAMED} more"] if len(arrays) > MOST_NAMED else []
        return ", ".join(arrays[:MOST_NAMED] + more) or "no array"

    def read(self, name: str, *, mapped: bool = False) -> np.ndarray:
        """Read one array, or map the file into memory (only .npy files can be mapped).

        Raises:
            ValueError: The file is damaged.
        """
        try:
            if name == "":
                return np.load(self.path, mmap_mode="r" if mapped else None, allow_pickle=False)
            with np.load(self.path, allow_pickle=False) as archive:
                return archive[name]
        except (*_UNREADABLE, KeyError, MemoryError) as error:
            raise ValueError(f"cannot read '{self.path}' {name} ({self.key}): {error}") from error


def open_arrays(path: Path, key: str) -> ArrayFile:
    """Read the headers of a .npy or .npz file.

    Args:
        path: The file.
        key: The config key that named it, for messages.

    Raises:
        ValueError: The file is missing, damaged, of another kind, or holds Python objects.
    """
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no file"
        raise ValueError(f"expected {key} to be a .npy or .npz file, got '{path}', {kind}")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                members = [name for name in archive.namelist() if name.endswith(".npy")]
                headers = {}
                for member in members:
                    with archive.open(member) as file:
                        headers[member.removesuffix(".npy")] = _header(file)
        else:
            with path.open("rb") as file:
                headers = {"": _header(file)}
    except _UNREADABLE as error:
        raise ValueError(f"cannot read '{path}' as a .npy or .npz file ({key}): {error}") from error
    for name, (_, dtype) in headers.items():
        if dtype.hasobject:
            raise ValueError(
                f"expected numbers in '{path}' ({key}), got Python objects in {repr(name) if name else 'its array'}, "
                "which are not read because they can run code"
            )
    return ArrayFile(path, key, headers)


def _header(file: object) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)  # type: ignore[arg-type]
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    # Version 3 differs from 2 by UTF-8 names of fields, and arrays with fields are no pictures.
    if version not in read:
        raise ValueError(f"format version {version} of .npy is not read")
    shape, _, dtype = read[version](file)  # type: ignore[arg-type]
    if any(type(size) is not int or size < 0 for size in shape) or math.prod(shape) * dtype.itemsize > MOST_BYTES:
        raise ValueError(f"no array has the shape {shape}")
    return shape, dtype
