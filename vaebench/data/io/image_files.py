"""Picture files: finding them, looking at their headers, decoding them."""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from vaebench.data.io.source import Source

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}
)
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L"})
ORIENTATION = 0x0112
SIDEWAYS = frozenset({5, 6, 7, 8})
CHUNK = 256


def find_pictures(folder: Path) -> list[Path]:
    """Return the picture files below `folder`, sorted by name; links are followed, hidden names are not.

    Raises:
        ValueError: A folder cannot be read.
    """
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        raise ValueError(f"cannot read '{error.filename}' (dataset.path): {error.strerror}") from error

    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        status = os.stat(parent)
        # A link to a folder above would lead round for ever.
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found.extend(
            Path(parent, name) for name in files if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        )
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def look(path: Path) -> tuple[tuple[int, int], bool]:
    """Read a picture's header.

    Returns:
        Height and width as it is shown, and whether it is grey.

    Raises:
        ValueError: The file is no picture.
    """
    if not path.is_file():
        raise ValueError(f"cannot read '{_printable(path)}' (dataset.path): no file is there, or a special one")
    try:
        with Image.open(path) as image:
            mode = image.mode
            if image.getexif().get(ORIENTATION) in SIDEWAYS:
                if image.format == "TIFF" and image.info.get("compression") == "raw":
                    raise ValueError("it lies on its side and is not compressed, which Pillow misreads; turn it")
                # Only after decoding do all formats and versions agree on the size.
                image.load()
                image = ImageOps.exif_transpose(image)
            return (image.height, image.width), mode in GREY_MODES
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def look_at_all(paths: Sequence[Path]) -> list[tuple[tuple[int, int], bool]]:
    """Read the headers of many pictures, as `look` does, in threads."""
    return [header for i in range(0, len(paths), CHUNK) for header in decoders().map(look, paths[i : i + CHUNK])]


def decode(path: Path, shape: tuple[int, int, int], *, resize: bool) -> Tensor:
    """Read a picture as uint8.

    Transparent pixels are shown on white; 16-bit grey becomes 8-bit; a camera's orientation is applied; the first
    picture of an animation is taken.

    Args:
        path: The file.
        shape: Channels (1 or 3), height and width.
        resize: Whether to scale the picture until it covers height and width, and to cut away what stands over equally
            on both sides.

    Returns:
        Shape `shape`.

    Raises:
        ValueError: The file cannot be read, or has another size.
    """
    channels, height, width = shape
    try:
        with Image.open(path) as image:
            image.load()
            picture = _eight_bits(ImageOps.exif_transpose(image), "L" if channels == 1 else "RGB")
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


def _eight_bits(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):
        wide = np.asarray(image, dtype=np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise ValueError(f"grey values from {wide.min()} to {wide.max()} do not fit 16 bits")
        image = Image.fromarray(np.round(wide / 257).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("grey values are floats; store such data as .npy, for dataset=arrays")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


# What Pillow raises for damaged files, and for pictures so large that they may be an attack; MemoryError for the rest.
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
    """Names may hold bytes that are no text; a log could not take them."""
    return str(path).encode(errors="backslashreplace").decode()


@functools.cache
def decoders() -> ThreadPoolExecutor:
    """Threads that decode; Pillow releases the interpreter's lock for that."""
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), "vaebench-decode")


# A forked child has none of its parent's threads; where there is no fork there is nothing to forget.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=decoders.cache_clear)


class PictureFiles(Source):
    """Pictures that are decoded when asked for.

    Args:
        paths: The files.
        shape: Channels (1 or 3), height and width of all.
        resize: As in `decode`.
    """

    dtype = torch.uint8

    def __init__(self, paths: Sequence[Path], shape: tuple[int, int, int], *, resize: bool) -> None:
        self.paths, self.shape, self.resize = list(paths), shape, resize

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Tensor) -> Tensor:
        """Decode some pictures; see `Source.read`."""
        x = torch.empty((len(indices), *self.shape), dtype=torch.uint8)
        decode_one = functools.partial(decode, shape=self.shape, resize=self.resize)  # type: ignore[arg-type]
        pictures = decoders().map(decode_one, [self.paths[i] for i in indices.tolist()])
        for row, picture in enumerate(pictures):
            x[row] = picture
        return x

    def take(self, indices: Tensor) -> Source:
        """Return some of the pictures; see `Source.take`."""
        return PictureFiles([self.paths[i] for i in indices.tolist()], self.shape, resize=self.resize)  # type: ignore[arg-type]

    def read_all(self) -> Tensor:
        """Decode all pictures, shape (N, *shape)."""
        x = torch.empty((len(self), *self.shape), dtype=torch.uint8)
        for rows in torch.arange(len(self)).split(CHUNK):
            x[rows] = self.read(rows)
        return x
