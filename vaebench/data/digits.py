"""Digits: the handwritten digits that come with scikit-learn; nothing is downloaded."""

from __future__ import annotations

import gzip
import importlib.util
import io
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch

from vaebench.data.dataset import Dataset
from vaebench.data.examples import Examples, hold_out
from vaebench.data.io.download import data_root
from vaebench.messages import counted

NUM_EXAMPLES, MAX_COUNT, FILE = 1797, 16, "digits.csv.gz"
MOST_BYTES = 2**24  # unpacked, thirty times the real file


class Digits(Dataset):
    """1,797 real handwritten digits of 8x8 pixels, from 43 writers.

    Each pixel counts the inked ones of 4x4 in the scan, so x is k / 16 with k = 0..16, shape (1, 8, 8), and the
    likelihood that suits it is Binomial(total_count=16). Labels are 0 to 9. The shuffle is fixed: 1,437 train, 180
    validate and 180 test, in that order.

    References:
        Optical Recognition of Handwritten Digits, the test part (Alpaydin and Kaynak, 1998),
        https://doi.org/10.24432/C50P49, CC BY 4.0; carried by scikit-learn (`sklearn.datasets.load_digits`).
    Args:
        root: A folder with a `digits.csv.gz` to use instead of scikit-learn's own: lines of 64 counts and a label.
        num_validation: How many validate.
        num_test: How many test.
        num_examples: Keep this many of the training examples; all by default.
        binarization: none, threshold (x > 0.5), static (drawn once), or dynamic (drawn for every training batch);
            other than none changes the likelihood to Bernoulli.
    Raises:
        ValueError: The file is missing in `root`, or damaged; a number of examples is more than there are; an unknown
            binarization.
    """

    name = "digits"

    def __init__(
        self,
        root: str | None = None,
        num_validation: int = 180,
        num_test: int = 180,
        num_examples: int | None = None,
        binarization: str = "none",
    ) -> None:
        train, validation, test = hold_out(_read(root), num_validation=num_validation, num_test=num_test)
        super().__init__(
            train,
            validation,
            test,
            likelihood_name="binomial",
            likelihood_arguments={"total_count": MAX_COUNT},
            scale=MAX_COUNT,
            binarization=binarization,
            num_examples=num_examples,
            num_classes=10,
        )


def _read(root: str | None) -> Examples:
    """All digits as counts, in the file's order."""
    if root is None:
        table = _scikit_learns()
    else:
        path = data_root(root) / FILE
        if not path.is_file():
            raise ValueError(f"expected '{FILE}' in '{root}' (dataset.root), which lacks it; null takes scikit-learn's")
        try:
            table = _table(path)
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise ValueError(f"cannot read '{path}' (dataset.root): {error}") from error
        if table.shape[1] != 65 or table[:, :-1].max() > MAX_COUNT or table[:, -1].max() > 9:
            raise ValueError(
                f"expected lines of 64 counts up to {MAX_COUNT} and a label up to 9 in '{path}' (dataset.root), got "
                f"{counted(table.shape[1], 'column')} with values up to {table.max()}"
            )
    images, labels = table[:, :-1], table[:, -1]
    return Examples(
        torch.from_numpy(np.ascontiguousarray(images)).reshape(-1, 1, 8, 8),
        torch.from_numpy(np.ascontiguousarray(labels)).to(torch.int64),
    )


def _scikit_learns() -> np.ndarray:
    # Read the file itself, because importing scikit-learn takes longer than an epoch.
    spec = importlib.util.find_spec("sklearn")
    folders = list(spec.submodule_search_locations or []) if spec else []
    file = Path(folders[0], "datasets", "data", FILE) if folders else None
    if file is not None and file.is_file():
        return _table(file)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target]).astype(np.uint8)


def _table(file: Path) -> np.ndarray:
    with gzip.open(file) as packed:
        content = packed.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it unfolds to more than {MOST_BYTES} bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # numpy only warns about an empty file
        try:
            return np.loadtxt(io.StringIO(content.decode()), delimiter=",", dtype=np.uint8, ndmin=2)
        except UserWarning as warning:
            raise ValueError(str(warning)) from warning
