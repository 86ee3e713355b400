"""Omniglot."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vaebench.data.dataset import Dataset
from vaebench.data.examples import Examples, hold_out
from vaebench.data.io.download import data_root, download
from vaebench.data.io.torchvision_import import import_torchvision

ORIGINAL_SIZE = 105
SIZES = (ORIGINAL_SIZE, ORIGINAL_SIZE)
MOST_BYTES = 2**20  # per picture in the archive; real ones have a few hundred


class Omniglot(Dataset):
    """32,460 handwritten characters of 50 alphabets, each drawn by 20 people, at 28x28 pixels.

    x is the share of ink in each pixel, k / 255 with k = 0..255, shape (1, 28, 28): the area average of the original
    105x105 black and white pixels, ink = 1 on paper = 0. Labels number the 1,623 characters in the order of alphabet
    and character, those of the background set first. Train and validation come from the published background set
    (19,280 pictures of 30 alphabets) by a fixed shuffle; the 13,180 test pictures are the published evaluation set, of
    20 other alphabets. Grey values suit a continuous Bernoulli; binarised ones a Bernoulli. Read from
    `<root>/omniglot-py/`, the folders or zip files `images_background` and `images_evaluation`; the latter are
    downloaded (15 MB) where they are missing.

    References:
        Human-level concept learning through probabilistic program induction (Lake et al., 2015),
        https://doi.org/10.1126/science.aab3050, MIT licence.
    Deviations:
        The pictures and splits are not those of `chardata.mat` (Burda et al., 2016): nats do not compare with papers
        that report on that file.
    Args:
        root: The folder of data sets.
        num_validation: How many of the background set validate.
        num_examples: Keep this many of the remaining training pictures; all by default.
        binarization: none, threshold (x > 0.5), static (drawn once), or dynamic (drawn for every training batch; the
            validation and test pictures once).
        size: Height and width after averaging, 1 to 105.
    Raises:
        ValueError: The files are missing and cannot be downloaded, or are damaged; a number of examples is more than
            there are; an unknown binarization; a size out of range.
    """

    name = "omniglot"

    def __init__(
        self,
        root: str = "data",
        num_validation: int = 1280,
        num_examples: int | None = None,
        binarization: str = "none",
        size: int = 28,
    ) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= ORIGINAL_SIZE:
            raise ValueError(f"expected dataset.size from 1 to {ORIGINAL_SIZE}, got {size!r}")
        folder = data_root(root) / "omniglot-py"
        background, num_background = _read_part(folder, "images_background", size)
        evaluation, num_evaluation = _read_part(folder, "images_evaluation", size)
        assert evaluation.y is not None
        train, validation = hold_out(background, num_validation=num_validation)
        super().__init__(
            train,
            validation,
            Examples(evaluation.x, evaluation.y + num_background),
            likelihood_name="continuous_bernoulli",
            binarization=binarization,
            num_examples=num_examples,
            num_classes=num_background + num_evaluation,
        )


def area_average(ink: Tensor, size: int) -> Tensor:
    """Average black and white pictures over the areas of larger pixels.

    Args:
        ink: 0 or 1, shape (N, S, S).
        size: Height and width of the result.

    Returns:
        Share of ink times 255, rounded, uint8, shape (N, size, size).
    """
    edges = torch.arange(size + 1, dtype=torch.float64) * (ink.shape[-1] / size)
    pixels = torch.arange(ink.shape[-1], dtype=torch.float64)
    overlap = (torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)).clamp(min=0)
    weights = overlap / overlap.sum(1, keepdim=True)
    return torch.cat([(weights @ part.double() @ weights.T * 255).round().to(torch.uint8) for part in ink.split(500)])


def _read_part(folder: Path, part: str, size: int) -> tuple[Examples, int]:
    """The pictures of one published part, and how many characters it has."""
    pictures, labels = [], []
    characters: dict[str, int] = {}
    for name, content in _files(folder, part):
        try:
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                ink = ~np.asarray(image.convert("1")) if image.size == SIZES else np.empty(image.size[::-1])
        except (OSError, SyntaxError, ValueError, zlib.error) as error:
            raise ValueError(f"cannot read '{name}' of '{folder / part}' (dataset.root): {error}") from error
        if ink.shape != (ORIGINAL_SIZE, ORIGINAL_SIZE):
            raise ValueError(
                f"expected 105x105 pixels in '{name}' of '{folder / part}' (dataset.root), got {ink.shape}"
            )
        pictures.append(ink)
        labels.append(characters.setdefault(name.rsplit("/", 1)[0], len(characters)))
    if not pictures:
        raise ValueError(
            f"expected pictures <alphabet>/<character>/*.png in '{folder / part}' (dataset.root), got none"
        )
    x = area_average(torch.from_numpy(np.stack(pictures)), size)[:, None]
    return Examples(x, torch.tensor(labels)), len(characters)


def _files(folder: Path, part: str) -> Iterator[tuple[str, bytes]]:
    """Names, from the alphabet on, and contents of the pictures, in order."""
    unpacked, packed = folder / part, folder / f"{part}.zip"
    if unpacked.is_dir():
        for path in sorted(unpacked.glob("*/*/*.png"), key=lambda p: p.parts):
            yield path.relative_to(unpacked).as_posix(), path.read_bytes()
        return
    if not packed.is_file():
        published = import_torchvision().datasets.Omniglot
        url = f"{published.download_url_prefix}/{part}.zip"
        download(folder, packed.name, [url], published.zips_md5[part])
    try:
        with zipfile.ZipFile(packed) as archive:
            names = [n for n in archive.namelist() if n.endswith(".png") and n.count("/") == 3]
            for name in sorted(names, key=lambda n: n.split("/")):
                if archive.getinfo(name).file_size > MOST_BYTES:
                    raise zipfile.BadZipFile(f"'{name}' unfolds to more than {MOST_BYTES} bytes")
                yield name.split("/", 1)[1], archive.read(name)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"cannot read '{packed}' (dataset.root): {error}; delete the file to get it again") from error
