"""CIFAR-10."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch

from vaebench.data.dataset import Dataset
from vaebench.data.examples import Examples, hold_out
from vaebench.data.io.download import data_root, download
from vaebench.data.io.torchvision_import import import_torchvision
from vaebench.messages import counted

ADDRESS = "https://www.cs.toronto.edu/~kriz/"
BINARY_ARCHIVE, BINARY_MD5 = "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
ROW = 1 + 3 * 32 * 32
MOST_BYTES = 2**26  # per entry of the archive, twice the real size


class CIFAR10(Dataset):
    """60,000 colour photographs of 32x32 pixels in ten classes.

    x is k / 255 with k = 0..255, shape (3, 32, 32); labels are 0 to 9 (airplane, automobile, bird, cat, deer, dog,
    frog, horse, ship, truck). The 10,000 test pictures are the published ones; the validation pictures are drawn from
    the published 50,000 training ones by a fixed shuffle. The likelihood that suits 8-bit colours is
    DiscretizedLogistic(256). Read from `<root>`, the first found of `cifar-10-batches-bin/`, `cifar-10-binary.tar.gz`,
    `cifar-10-batches-py/` and `cifar-10-python.tar.gz`, the last two as torchvision keeps them and only with the
    published checksums, because they are pickles; the binary archive is downloaded (162 MB) where all are missing.

    References:
        Learning multiple layers of features from tiny images (Krizhevsky, 2009),
        https://www.cs.toronto.edu/~kriz/cifar.html. Licence: none stated.
    Args:
        root: The folder of data sets.
        num_validation: How many of the training pictures validate.
        num_examples: Keep this many of the remaining training pictures; all by default.
    Raises:
        ValueError: The files are missing and cannot be downloaded, or are damaged; a number of examples is more than
            there are.
    """

    name = "cifar10"

    def __init__(self, root: str = "data", num_validation: int = 5000, num_examples: int | None = None) -> None:
        batches = _read(data_root(root))
        pictures, labels = zip(*batches[:-1], strict=True)
        pool = Examples(torch.from_numpy(np.concatenate(pictures)), torch.from_numpy(np.concatenate(labels)))
        train, validation = hold_out(pool, num_validation=num_validation)
        test = Examples(*(torch.from_numpy(array) for array in batches[-1]))
        super().__init__(
            train,
            validation,
            test,
            likelihood_name="discretized_logistic",
            likelihood_arguments={"num_levels": 256},
            num_examples=num_examples,
            num_classes=10,
        )


def _read(root: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures, uint8, (N, 3, 32, 32), and labels, int64, of the five training batches and the test batch."""
    binary_folder, pickle_folder = root / "cifar-10-batches-bin", root / "cifar-10-batches-py"
    pickle_archive = root / "cifar-10-python.tar.gz"
    if binary_folder.is_dir():
        return _from_folder(binary_folder, ".bin", _parse_binary)
    if (root / BINARY_ARCHIVE).is_file():
        return _from_archive(root / BINARY_ARCHIVE, ".bin", _parse_binary)
    if pickle_folder.is_dir():
        return _from_folder(pickle_folder, "", _parse_pickle)
    if pickle_archive.is_file():
        return _from_archive(pickle_archive, "", _parse_pickle)
    return _from_archive(download(root, BINARY_ARCHIVE, [ADDRESS + BINARY_ARCHIVE], BINARY_MD5), ".bin", _parse_binary)


class _Bounded:
    """A stream of which nobody reads more at once than an honest archive needs, for an entry or its header."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream, self.seek, self.tell = stream, stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MOST_BYTES:
            raise OSError(f"an entry takes more than {MOST_BYTES} bytes")
        return self._stream.read(size)


Parse = Callable[[bytes, str], tuple[np.ndarray, np.ndarray]]


def _from_folder(folder: Path, suffix: str, parse: Parse) -> list[tuple[np.ndarray, np.ndarray]]:
    missing = [name + suffix for name in BATCHES if not (folder / f"{name}{suffix}").is_file()]
    if missing:
        raise ValueError(f"expected '{missing[0]}' in '{folder}' (dataset.root), which lacks it")
    return [parse((folder / f"{name}{suffix}").read_bytes(), str(folder / f"{name}{suffix}")) for name in BATCHES]


def _from_archive(path: Path, suffix: str, parse: Parse) -> list[tuple[np.ndarray, np.ndarray]]:
    found: dict[str, bytes] = {}
    wanted = {f"{name}{suffix}" for name in BATCHES}
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=cast(IO[bytes], _Bounded(stream))) as archive:
            for member in archive:
                name = Path(member.name).name
                content = archive.extractfile(member) if member.isfile() and name in wanted else None
                if content is not None:
                    found[name] = content.read(member.size)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise ValueError(f"cannot read '{path}' (dataset.root): {error}; delete the file to get it again") from error
    if missing := sorted(wanted - found.keys()):
        raise ValueError(f"expected '{missing[0]}' in '{path}' (dataset.root), which lacks it")
    return [parse(found[f"{name}{suffix}"], f"{path}:{name}{suffix}") for name in BATCHES]


def _parse_binary(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a label and 3 x 1024 bytes: all reds, all greens, all blues."""
    if not content or len(content) % ROW:
        raise ValueError(
            f"expected rows of {ROW} bytes in '{where}' (dataset.root), got {counted(len(content), 'byte')}"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, ROW)
    return _checked(rows[:, 1:], rows[:, 0], where)


def _parse_pickle(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """torchvision's form; only the published bytes are unpickled, and only arrays and plain values come out."""
    published = import_torchvision().datasets.CIFAR10
    checksums = {md5 for _, md5 in published.train_list + published.test_list}
    if hashlib.md5(content, usedforsecurity=False).hexdigest() not in checksums:
        raise ValueError(
            f"expected '{where}' (dataset.root) to have the published checksum, got other content, which is not "
            f"unpickled; delete it, or put the binary version, {BINARY_ARCHIVE}, in its place"
        )
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except pickle.UnpicklingError as error:
        raise ValueError(f"cannot read '{where}' (dataset.root): {error}") from error
    return _checked(np.asarray(batch[b"data"]), np.asarray(batch[b"labels"]), where)


def _checked(pixels: np.ndarray, labels: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    if labels.max() > 9:
        raise ValueError(f"expected labels from 0 to 9 in '{where}' (dataset.root), got {labels.max()}")
    return np.array(pixels, np.uint8).reshape(-1, 3, 32, 32), labels.astype(np.int64)


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        allowed = {"ndarray": np.ndarray, "dtype": np.dtype, "_reconstruct": np.empty(0).__reduce__()[0]}
        if module.split(".")[0] == "numpy" and name in allowed:
            return allowed[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
