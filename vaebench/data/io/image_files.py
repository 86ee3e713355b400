"""Picture files: finding them, looking at their headers, decoding them."""

from __future__ import annotations

import functools
import os
import zlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from vaebench.data.io.source import Source
from vaebench.data.io.values import BYTE, WORD, Range, scan

SUFFIXES = frozenset(
    {
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".webp", ".avif", ".jp2", ".j2k"),
        *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
    }
)
# Pillow would open other formats too, and start Ghostscript for PostScript.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "WEBP", "AVIF", "JPEG2000", "TIFF", "PPM")
BLACK_AND_WHITE = "1"
WIDE_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "F"})
GREY_MODES = frozenset({BLACK_AND_WHITE, "L", "LA", "La", *WIDE_MODES})
ORIENTATION = 0x0112
SIDEWAYS = frozenset({5, 6, 7, 8})
CHUNK = 256


@functools.cache
def formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that this Pillow knows."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@dataclass(frozen=True)
class Header:
    """The header of a picture.

    Attributes:
        size: Height and width as it is shown.
        mode: Pillow's name of what a pixel is.
        format: Pillow's name of the file's format.
    """

    size: tuple[int, int]
    mode: str
    format: str

    @property
    def is_grey(self) -> bool:
        """Whether it has no colours."""
        return self.mode in GREY_MODES

    @property
    def is_wide(self) -> bool:
        """Whether a pixel takes more than 8 bits."""
        return self.mode in WIDE_MODES


def find_pictures(folder: Path) -> tuple[list[Path], Counter[str]]:
    """Find the picture files below `folder`; links are followed, hidden names are not.

    Returns:
        The files, sorted by name, and how many were left out because of their endings, by ending.

    Raises:
        ValueError: A folder cannot be read.
    """
    found: list[Path] = []
    left_out: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        raise ValueError(f"cannot read '{error.filename}' (dataset.path): {error.strerror}") from error

    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        status = os.stat(parent)
        # A link to a parent folder would loop for ever.
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            suffix = Path(name).suffix.lower()
            if not name.startswith(".") and suffix in SUFFIXES:
                found.append(Path(parent, name))
            elif not name.startswith("."):
                left_out[suffix or "no ending"] += 1
    return sorted(found, key=lambda path: path.relative_to(folder).parts), left_out


def look(path: Path) -> Header:
    """Read a picture's header.

    Raises:
        ValueError: The file is not a picture.
    """
    if not path.is_file():
        raise ValueError(f"cannot read '{_printable(path)}' (dataset.path): no file is there, or a special one")
    try:
        with Image.open(path, formats=formats()) as image:
            mode, form = image.mode, str(image.format)
            if image.getexif().get(ORIENTATION) in SIDEWAYS:
                if image.format == "TIFF" and image.info.get("compression") == "raw":
                    raise ValueError("it lies on its side and is not compressed, which Pillow misreads; turn it")
                # Formats and Pillow versions agree on the size only after decoding.
                image.load()
                image = ImageOps.exif_transpose(image)
            return Header((image.height, image.width), mode, form)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def look_at_all(paths: Sequence[Path]) -> list[Header]:
    """Read the headers of many pictures, as `look` does, in threads."""
    return [header for i in range(0, len(paths), CHUNK) for header in decoders().map(look, paths[i : i + CHUNK])]


def range_of(path: Path) -> Range:
    """Look at every pixel of a picture of more than 8 bits.

    Raises:
        ValueError: The file cannot be read, or a pixel is not finite.
    """
    try:
        with Image.open(path, formats=formats()) as image:
            pixels = np.asarray(image)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    return scan(pixels[None], f"'{_printable(path)}' (dataset.path)")


def ranges_of_all(paths: Sequence[Path]) -> list[Range]:
    """Look at the pixels of many pictures, as `range_of` does, in threads."""
    return [found for i in range(0, len(paths), CHUNK) for found in decoders().map(range_of, paths[i : i + CHUNK])]


def decode(path: Path, shape: tuple[int, int, int], *, resize: bool, white: float = WORD) -> Tensor:
    """Read a picture as uint8.

    Transparent pixels are shown on white; grey of more than 8 bits becomes 8-bit; a camera's orientation is applied;
    the first picture of an animation is taken.

    Args:
        path: The file.
        shape: Channels (1 or 3), height and width.
        resize: Whether to scale the picture until it covers height and width, and to cut away what stands over equally
            on both sides.
        white: The value that is white where a pixel takes more than 8 bits.

    Returns:
        Shape `shape`.

    Raises:
        ValueError: The file cannot be read, or has another size.
    """
    channels, height, width = shape
    try:
        with Image.open(path, formats=formats()) as image:
            image.load()
            picture = _eight_bits(ImageOps.exif_transpose(image), "L" if channels == 1 else "RGB", white)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    if picture.size != (width, height):
        if not resize:
            raise ValueError(
                f"expected {width}x{height} pixels in '{path}' (dataset.path), got {picture.width}x{picture.height}"
            )
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(picture, dtype=np.uint8)).reshape(height, width, channels)
    return pixels.permute(2, 0, 1).contiguous()


def _eight_bits(image: Image.Image, mode: str, white: float) -> Image.Image:
    if image.mode in WIDE_MODES:
        wide = np.asarray(image, dtype=np.float64)
        if not (wide.min() >= 0 and wide.max() <= white):
            raise ValueError(f"grey values from {wide.min():g} to {wide.max():g} leave 0 to {white:g} (dataset.scale)")
        image = Image.fromarray(np.round(wide * (BYTE / white)).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


# What Pillow raises for damaged files and decompression bombs; MemoryError for what gets past it.
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    MemoryError,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def _unreadable(path: Path, error: BaseException) -> ValueError:
    reason = "no picture that Pillow knows" if isinstance(error, UnidentifiedImageError) else str(error)
    return ValueError(f"cannot read '{_printable(path)}' (dataset.path): {reason or type(error).__name__}")


def _printable(path: Path) -> str:
    """Names may hold bytes that are not text, which a log cannot print."""
    return str(path).encode(errors="backslashreplace").decode()


@functools.cache
def decoders() -> ThreadPoolExecutor:
    """Threads that decode; Pillow releases the interpreter's lock for that."""
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), "vaebench-decode")


# A forked child has none of its parent's threads. Not every platform has fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=decoders.cache_clear)


class PictureFiles(Source):
    """Pictures that are decoded when asked for.

    Args:
        paths: The files.
        shape: Channels (1 or 3), height and width of all.
        resize: As in `decode`.
        white: As in `decode`.
    """

    dtype = torch.uint8

    def __init__(
        self, paths: Sequence[Path], shape: tuple[int, int, int], *, resize: bool, white: float = WORD
    ) -> None:
        self.paths, self.shape, self.resize, self.white = list(paths), shape, resize, white

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Tensor) -> Tensor:
        """Decode some pictures; see `Source.read`."""
        x = torch.empty((len(indices), *self.shape), dtype=torch.uint8)
        decode_one = functools.partial(
            decode,
            shape=self.shape,  # type: ignore[arg-type]
            resize=self.resize,
            white=self.white,
        )
        pictures = decoders().map(decode_one, [self.paths[i] for i in indices.tolist()])
        for row, picture in enumerate(pictures):
            x[row] = picture
        return x

    def take(self, indices: Tensor) -> Source:
        """Return some of the pictures; see `Source.take`."""
        paths = [self.paths[i] for i in indices.tolist()]
        return PictureFiles(paths, self.shape, resize=self.resize, white=self.white)  # type: ignore[arg-type]

    def read_all(self) -> Tensor:
        """Decode all pictures, shape (N, *shape)."""
        x = torch.empty((len(self), *self.shape), dtype=torch.uint8)
        for rows in torch.arange(len(self)).split(CHUNK):
            x[rows] = self.read(rows)
        return x
