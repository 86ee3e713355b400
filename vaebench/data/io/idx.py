"""The idx files of MNIST and of the sets made in its image."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from vaebench.data.examples import Examples
from vaebench.data.io.download import data_root, download
from vaebench.data.io.torchvision_import import import_torchvision
from vaebench.messages import counted

UNSIGNED_BYTE, MOST_DIMS = 8, 4
MOST_BYTES = 2**30
NUM_CLASSES = 10


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file of unsigned bytes, packed by gzip or not.

    Raises:
        ValueError: The file is damaged, or not an idx file of bytes.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            start = file.read(4)
            if len(start) < 4 or start[:3] != bytes([0, 0, UNSIGNED_BYTE]):
                raise ValueError(f"expected '{path}' (dataset.root) to be an idx file of bytes, got other content")
            num_dims = start[3]
            sizes = file.read(4 * min(num_dims, MOST_DIMS))
            shape = struct.unpack(f">{len(sizes) // 4}I", sizes[: len(sizes) // 4 * 4])
            is_whole = 1 <= num_dims == len(shape)
            if is_whole and math.prod(shape) > MOST_BYTES:
                raise ValueError(
                    f"expected '{path}' (dataset.root) to hold at most {MOST_BYTES} bytes, got the shape {shape}"
                )
            # Read one byte more than expected instead of unpacking without limit.
            content = file.read(math.prod(shape) + 1) if is_whole else b""
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"cannot read '{path}' (dataset.root): {error}; delete the file to get it again") from error
    if not is_whole or len(content) != math.prod(shape):
        more = "more than " * (is_whole and len(content) > math.prod(shape))
        got = f"{more}{counted(min(len(content), math.prod(shape)), 'byte')}"
        raise ValueError(
            f"expected '{path}' (dataset.root) to hold an array of shape {shape}, got {got}; delete the file to get it "
            "again"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def read_idx_pair(root: str, name: str) -> tuple[Examples, Examples]:
    """Return the training and the test examples of a set in MNIST's form, as bytes of shape (1, H, W).

    The files are read where torchvision puts them, `<root>/<name>/raw/`, with or without `.gz`, and nothing is
    written; a missing one is downloaded from torchvision's addresses and its checksum compared.

    Args:
        root: The folder of data sets.
        name: torchvision's name of the set, which is also its folder's.

    Raises:
        ValueError: A file is damaged, or missing and cannot be downloaded.
    """
    folder = data_root(root) / name / "raw"
    parts = []
    for part in ("train", "t10k"):
        images_file, labels_file = (
            _find(folder, name, f"{part}-images-idx3"),
            _find(folder, name, f"{part}-labels-idx1"),
        )
        images, labels = read_idx(images_file), read_idx(labels_file)
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"expected pictures and as many labels in '{images_file}' and '{labels_file}' (dataset.root), "
                f"got shapes {images.shape} and {labels.shape}"
            )
        if images.size == 0:
            raise ValueError(f"expected pictures in '{images_file}' (dataset.root), got shape {images.shape}")
        if labels.max() >= NUM_CLASSES:
            raise ValueError(f"expected labels from 0 to 9 in '{labels_file}' (dataset.root), got {labels.max()}")
        parts.append(Examples(torch.tensor(images)[:, None], torch.tensor(labels, dtype=torch.int64)))
    return parts[0], parts[1]


def _find(folder: Path, name: str, stem: str) -> Path:
    """The packed file first, because gzip carries a checksum."""
    packed = folder / f"{stem}-ubyte.gz"
    for path in (packed, folder / f"{stem}-ubyte"):
        if path.is_file():
            return path
    published = getattr(import_torchvision().datasets, name)
    md5 = dict(published.resources)[packed.name]
    return download(folder, packed.name, [mirror + packed.name for mirror in published.mirrors], md5)
