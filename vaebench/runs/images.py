"""Grids of images as PNG files, written atomically."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Collection, Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vaebench.runs.run import write_atomic

MIN_TILE = 56  # pixels; smaller tiles are enlarged by whole factors, to be readable
FRAME = (255, 153, 0)
FONT_SIZE = 12
BACKGROUND = 72  # grey of the gaps, visible beside white and black pictures


def to_image(
    images: Tensor,
    columns: int | None = None,
    gap: int = 2,
    *,
    framed: Collection[int] = (),
    row_labels: Sequence[str] = (),
    caption: str | None = None,
) -> Image.Image:
    """Lay images out as a grid.

    Args:
        images: Shape (N, C, H, W) with C = 1 or 3 (other channel counts show the first), values in [0, 1]; values
            outside are cut for display. Videos (N, T, C, H, W) are shown as strips of their frames.
        columns: Tiles in a row; by default the grid is about square.
        gap: Pixels between tiles.
        framed: Positions of tiles with a frame in a colour of its own.
        row_labels: Words to the left of the rows.
        caption: A line beneath the grid.

    Raises:
        ValueError: if `images` is not a non-empty (N, C, H, W) tensor.
    """
    if images.ndim not in (4, 5) or images.shape[0] == 0:
        raise ValueError(
            f"expected images (N, C, H, W) or videos (N, T, C, H, W) with N >= 1, got {tuple(images.shape)}"
        )
    factor = max(1, math.ceil(MIN_TILE / max(images.shape[-2:])))
    if images.ndim == 5:
        columns = columns or max(1, round(math.sqrt(images.shape[0] / images.shape[1])))
        images = film_strips(images)
    n, channels, height, width = images.shape
    images = images if channels in (1, 3) else images[:, :1]
    pixels = images.detach().float().cpu().nan_to_num(0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
    pixels = pixels.repeat_interleave(factor, -1).repeat_interleave(factor, -2).expand(-1, 3, -1, -1)
    height, width = height * factor, width * factor
    columns = min(n, columns or math.ceil(math.sqrt(n)))
    rows = math.ceil(n / columns)
    canvas = torch.full((3, rows * (height + gap) + gap, columns * (width + gap) + gap), BACKGROUND, dtype=torch.uint8)
    for i, tile in enumerate(pixels):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        if i in framed:
            frame = torch.tensor(FRAME, dtype=torch.uint8)[:, None, None]
            canvas[:, top - gap : top + height + gap, left - gap : left + width + gap] = frame
        canvas[:, top : top + height, left : left + width] = tile
    grid = Image.fromarray(canvas.permute(1, 2, 0).numpy(), mode=None)
    return _with_words(grid, height + gap, row_labels, caption) if row_labels or caption else grid


def film_strips(videos: Tensor) -> Tensor:
    """Lay the frames of videos (N, T, C, H, W) side by side, a white line between them: (N, C, H, T (W + 1) - 1)."""
    with_line = torch.nn.functional.pad(videos, (0, 1), value=1.0)
    return with_line.movedim(1, -2).flatten(-2)[..., :-1]


def _with_words(grid: Image.Image, row_height: int, row_labels: Sequence[str], caption: str | None) -> Image.Image:
    font = ImageFont.load_default(FONT_SIZE)
    margin = round(max((font.getlength(label) for label in row_labels), default=-8)) + 8
    width = max(margin + grid.width, round(font.getlength(caption or "")) + 8)
    canvas = Image.new("RGB", (width, grid.height + (FONT_SIZE + 8 if caption else 0)), (BACKGROUND,) * 3)
    canvas.paste(grid, (margin, 0))
    draw = ImageDraw.Draw(canvas)
    for row, label in enumerate(row_labels):
        draw.text((4, (row + 0.5) * row_height), label, font=font, anchor="lm")
    if caption:
        draw.text((4, grid.height + 3), caption, font=font)
    return canvas


def side_by_side(originals: Tensor, reconstructions: Tensor, columns: int = 8) -> Tensor:
    """Interleave rows for a grid of min(columns, N) columns: one row of originals, beneath it their reconstructions.

    Rows are whole: past `columns` examples, those beyond its last multiple are left out.

    Args:
        originals: Shape (N, C, H, W), or videos (N, T, C, H, W).
        reconstructions: The same shape.
        columns: Tiles in a row.
    """
    n = originals.shape[0] // columns * columns or originals.shape[0]
    step = min(columns, n)
    rows = []
    for i in range(0, n, step):
        rows += [originals[i : i + step], reconstructions[i : i + step]]
    return torch.cat(rows)


def save_image(path: str | os.PathLike[str], images: Tensor | Image.Image, columns: int | None = None) -> None:
    """Write a grid (or a finished picture) as PNG; the file appears whole or not at all."""
    picture = images if isinstance(images, Image.Image) else to_image(images, columns)
    content = io.BytesIO()
    picture.save(content, format="PNG")
    write_atomic(path, content.getvalue())
