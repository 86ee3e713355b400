"""The fixed binarisation of MNIST."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from vaebench.data.dataset import Dataset
from vaebench.data.examples import Examples
from vaebench.data.io.array_files import open_arrays
from vaebench.data.io.download import data_root, download
from vaebench.messages import counted

ADDRESS = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
MD5 = {
    "train": "db28b1a6ae0fe70cbd3da91acf46e477",
    "valid": "bf37822a04e94123630de6a7dfd9c9ef",
    "test": "14e41ae11040adba6ab8cb291eda0dd8",
}
MOST_BYTES = 2**29  # all parts together; the published files have 110 MB


class BinarizedMNIST(Dataset):
    """MNIST in black and white, each pixel drawn once: the data that published nats on "static MNIST" refer to.

    x is 0 or 1, shape (1, 28, 28); there are no labels; the splits of 50,000, 10,000 and 10,000 pictures are the
    published ones. The likelihood that suits it is Bernoulli. Read from `<root>/binarized_mnist/`: one file
    `binarized_mnist.npz` with arrays train, valid and test of 784 columns, or the original three
    `binarized_mnist_{train,valid,test}.amat`, which are downloaded (105 MB) where both are missing.

    References:
        The neural autoregressive distribution estimator (Larochelle and Murray, 2011),
        http://proceedings.mlr.press/v15/larochelle11a.html; pixels drawn by Salakhutdinov and Murray (2008). Licence:
        none stated.
    Args:
        root: The folder of data sets.
        num_examples: Keep this many of the training pictures; all by default.
    Raises:
        ValueError: The files are missing and cannot be downloaded, or damaged, or hold other values than 0 and 1.
    """

    name = "binarized_mnist"

    def __init__(self, root: str = "data", num_examples: int | None = None) -> None:
        folder = data_root(root) / "binarized_mnist"
        packed = folder / "binarized_mnist.npz"
        parts = _read_npz(packed) if packed.is_file() else [_read_amat(_find(folder, part)) for part in MD5]
        train, validation, test = (Examples(torch.tensor(part).reshape(-1, 1, 28, 28)) for part in parts)
        super().__init__(train, validation, test, likelihood_name="bernoulli", scale=1.0, num_examples=num_examples)


def _read_npz(path: Path) -> list[np.ndarray]:
    file = open_arrays(path, "dataset.root")
    for part in MD5:
        shape, dtype = file.headers.get(part, ((), None))
        if dtype is None or len(shape) < 2 or math.prod(shape[1:]) != 784 or shape[0] == 0:
            raise ValueError(
                f"expected arrays train, valid and test of 784 columns in '{path}' (dataset.root), "
                f"got {file.describe()}"
            )
    if sum(file.nbytes(part) for part in MD5) > MOST_BYTES:
        raise ValueError(f"expected at most {MOST_BYTES} bytes in '{path}' (dataset.root), got {file.describe()}")
    arrays = [file.read(part) for part in MD5]
    for part, array in zip(MD5, arrays, strict=True):
        if ((array != 0) & (array != 1)).any():
            raise ValueError(f"expected 0 and 1 in '{part}' of '{path}' (dataset.root), got other values")
    return [array.astype(np.uint8) for array in arrays]


def _find(folder: Path, part: str) -> Path:
    filename = f"binarized_mnist_{part}.amat"
    path = folder / filename
    return path if path.is_file() else download(folder, filename, [ADDRESS + filename], MD5[part])


def _read_amat(path: Path) -> np.ndarray:
    """Text: a picture in a line, 784 times 0 or 1 with blanks between."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"expected at most {MOST_BYTES} bytes in '{path}' (dataset.root); delete it to get it again")
    text = np.fromfile(path, np.uint8)
    is_digit = (text == ord("0")) | (text == ord("1"))
    num_digits, num_lines = int(is_digit.sum()), int((text == ord("\n")).sum())
    others = text[~is_digit]
    is_blank = (others == ord(" ")) | (others == ord("\n")) | (others == ord("\r"))
    if num_digits == 0 or num_digits not in (784 * num_lines, 784 * (num_lines + 1)) or not is_blank.all():
        raise ValueError(
            f"expected lines of 784 times 0 or 1 in '{path}' (dataset.root), got "
            f"{counted(num_digits, 'digit')} in {counted(num_lines, 'line')}; delete the file to get it again"
        )
    return (text[is_digit] - ord("0")).reshape(-1, 784)
