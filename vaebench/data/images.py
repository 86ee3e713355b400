"""A user's own folder of pictures."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vaebench.data.dataset import Dataset
from vaebench.data.examples import Examples, fill_parts, unseen_classes
from vaebench.data.io.image_files import (
    BLACK_AND_WHITE,
    SUFFIXES,
    Header,
    PictureFiles,
    find_pictures,
    look_at_all,
    ranges_of_all,
)
from vaebench.data.io.own_path import memory_limit, own_path
from vaebench.data.io.values import BYTE, CHUNK, WORD, Range, Scale, Values, check_scale, understand
from vaebench.messages import counted, did_you_mean

COPIES = 2  # of all pictures in memory, while they are split
MOST_ENDINGS = 5  # file endings named in a message
MODES = ("auto", "grey", "rgb")
PART_FOLDERS = {
    "train": "train",
    "valid": "validation",
    "val": "validation",
    "validation": "validation",
    "test": "test",
}


class Images(Dataset):
    """A user's own folder of pictures of any size, grey or colour.

    x is k / 255, shape (C, H, W), C = 1 if all pictures are grey and otherwise 3. All files with a picture's suffix are
    taken, in folders below too; hidden ones are not, and how many others were left out is told. Grey of more than 8
    bits is brought to 8: PNG has 16, and for other files the range of all pixels tells, unless `scale` does. Folders
    train, valid (or val, validation) and test at the top keep their parts; otherwise a fixed shuffle splits. Where
    every picture lies in a folder, and there are at least two, the names of the topmost ones are the classes. Pictures
    that take more memory than `memory_gib` are decoded batch by batch. The likelihood that suits colour is
    DiscretizedLogistic(256), for grey a continuous Bernoulli, and for pictures in black and white Bernoulli.

    Args:
        path: The folder.
        root: The folder from which a relative path counts; the working directory by default.
        size: Height and width, one number or two; pictures are scaled to cover it and cut to fit, equally on both
            sides. By default all must have the same size, and keep it.
        scale: In grey pictures of more than 8 bits, the value that is white; auto is 255 or 65535.
        mode: grey, rgb, or auto, which is rgb unless all pictures are grey.
        validation_fraction: Share that validates, where there is no such folder.
        test_fraction: Share that tests, where there is no such folder.
        num_examples: Keep this many of the training pictures; all by default.
        binarization: none, threshold (x > 0.5), static (drawn once), or dynamic (drawn for every training batch; the
            validation and test pictures once).
        memory_gib: What takes more memory, copies included, is streamed from disk and kept nowhere.
    Raises:
        ValueError: The folder is missing or holds no picture; a file cannot be read; sizes differ and no size is given;
            a number of examples is more than there are.
    """

    name = "images"

    def __init__(
        self,
        path: str | None = None,
        root: str | None = None,
        size: int | Sequence[int] | None = None,
        scale: float | Literal["auto"] = "auto",
        mode: str = "auto",
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        num_examples: int | None = None,
        binarization: str = "none",
        memory_gib: float = 3.0,
    ) -> None:
        if mode not in MODES:
            raise ValueError(
                f"expected dataset.mode to be one of {', '.join(MODES)}, got {mode!r}" + did_you_mean(str(mode), MODES)
            )
        check_scale(scale)
        limit = memory_limit(memory_gib)
        wanted = _height_and_width(size)
        folder = own_path(path, root, "pictures/")
        if not folder.is_dir():
            raise ValueError(f"expected dataset.path to be a folder of pictures, got the file '{folder}'")
        files, left_out = find_pictures(folder)
        if not files:
            raise ValueError(
                f"expected pictures in '{folder}' (dataset.path), got no file that ends in "
                f"{', '.join(sorted(SUFFIXES))}{_others(left_out)}"
            )
        headers = look_at_all(files)
        shape = _common_shape(files, headers, wanted, mode)
        white = _white(folder, files, headers, scale)
        by_part = _parts(folder, files)
        labels, num_classes = _labels(by_part)
        is_large = COPIES * len(files) * shape[0] * shape[1] * shape[2] > limit
        parts = {}
        for part, members in by_part.items():
            source = PictureFiles([file for file, _ in members], shape, resize=wanted is not None, white=white.scale)
            parts[part] = Examples(source if is_large else source.read_all(), labels.get(part))
        train, validation, test = fill_parts(
            parts, validation_fraction=validation_fraction, test_fraction=test_fraction, where=f"'{folder}'"
        )
        tensors = [part.x for part in parts.values() if isinstance(part.x, Tensor)]
        of_one_bit = all(header.mode == BLACK_AND_WHITE for header in headers) and wanted is None
        is_binary = of_one_bit or (not is_large and all(map(is_two_tone, tensors)))
        kind = "binary" if is_binary else "bytes"
        likelihood_name, likelihood_arguments = Values(kind, BYTE, torch.uint8, "").likelihood(shape)
        super().__init__(
            train,
            validation,
            test,
            likelihood_name=likelihood_name,
            likelihood_arguments=likelihood_arguments,
            binarization=binarization,
            num_examples=num_examples,
            num_classes=num_classes,
            found=_found(folder, headers, shape, kind, white) + _others(left_out),
            cautions=list(filter(None, [white.caution, unseen_classes(parts)])),
        )


def _height_and_width(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = [size, size] if isinstance(size, int) else list(size) if isinstance(size, Sequence) else []
    if len(sides) != 2 or any(not isinstance(side, int) or isinstance(side, bool) or side < 1 for side in sides):
        raise ValueError(f"expected dataset.size to be a positive number, or [height, width], got {size!r}")
    return sides[0], sides[1]


def is_two_tone(x: Tensor) -> bool:
    """Whether all of uint8 pixels are 0 or 255."""
    return all(bool(((part == 0) | (part == BYTE)).all()) for part in x.split(CHUNK))


def _white(folder: Path, files: list[Path], headers: list[Header], scale: Scale) -> Values:
    """Return the value that stands for white in pictures of more than 8 bits: one for all pictures."""
    wide = [(file, header) for file, header in zip(files, headers, strict=True) if header.is_wide]
    if scale != "auto" or all(header.format == "PNG" for _, header in wide):  # a PNG says whether it has 16 bits
        white = WORD if scale == "auto" else float(scale)
        return Values("bytes", white, torch.uint8, f"{len(wide)} of more than 8 bits, brought to 8 (k / {white:g})")
    seen = functools.reduce(Range.joined, ranges_of_all([file for file, _ in wide]))
    values = understand(seen, f"'{folder}' (dataset.path)")
    if values.kind == "real":
        raise ValueError(
            f"expected grey values from 0 in '{folder}' (dataset.path), got {seen}; set dataset.scale to the value "
            "that is white, or store such data as .npy, for dataset=arrays"
        )
    top = WORD if values.scale > BYTE else BYTE if not seen.is_float else 1.0
    words = f"{len(wide)} of more than 8 bits ({seen}), brought to 8 (k / {top:g})"
    return Values("bytes", top, torch.uint8, words, values.caution)


def _found(folder: Path, headers: list[Header], shape: tuple[int, int, int], kind: str, white: Values) -> str:
    """Describe the contents of the folder in one line."""
    words = "black and white" if kind == "binary" else "grey" if shape[0] == 1 else "colour"
    has_wide = any(header.is_wide for header in headers)
    return f"'{folder}' has {counted(len(headers), 'picture')}, {words}{f', {white.found}' if has_wide else ''}"


def _others(left_out: Counter[str]) -> str:
    """How many files were left out, by their endings."""
    if not left_out:
        return ""
    endings = [f"{number} ({ending})" for ending, number in left_out.most_common(MOST_ENDINGS)]
    return f"; left out for their endings: {', '.join(endings)}" + ", …" * (len(left_out) > MOST_ENDINGS)


def _common_shape(
    files: list[Path], headers: list[Header], wanted: tuple[int, int] | None, mode: str
) -> tuple[int, int, int]:
    """Channels, height and width of all pictures, from their headers."""
    height, width = wanted or headers[0].size
    for file, header in zip(files, headers, strict=True):
        h, w = header.size
        if wanted is None and (h, w) != (height, width):
            raise ValueError(
                f"expected pictures of one size (dataset.path), got {width}x{height} in '{files[0]}' and {w}x{h} in "
                f"'{file}'; set dataset.size to scale them"
            )
    is_grey = mode == "grey" or (mode == "auto" and all(header.is_grey for header in headers))
    return (1 if is_grey else 3), height, width


def _parts(folder: Path, files: list[Path]) -> dict[str, list[tuple[Path, str | None]]]:
    """Part -> its files and the folder that each lies in, below the part's own."""
    tops = {file.relative_to(folder).parts[0] for file in files}
    has_parts = "train" in tops and tops <= PART_FOLDERS.keys()
    found: dict[str, list[tuple[Path, str | None]]] = {}
    for file in files:
        inside = file.relative_to(folder).parts
        part = PART_FOLDERS[inside[0]] if has_parts else "train"
        inside = inside[1:] if has_parts else inside
        found.setdefault(part, []).append((file, inside[0] if len(inside) > 1 else None))
    return found


def _labels(parts: dict[str, list[tuple[Path, str | None]]]) -> tuple[dict[str, Tensor], int | None]:
    """Part -> numbers of the classes, in the order of their names, and how many there are."""
    names = {name for members in parts.values() for _, name in members}
    if None in names or len(names) < 2:
        return {}, None
    number = {name: i for i, name in enumerate(sorted(name for name in names if name is not None))}
    return {part: torch.tensor([number[name] for _, name in members if name]) for part, members in parts.items()}, len(
        number
    )
