"""Pictures of a run inside a page."""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path

from vaebench.runs.regular import read_bytes

MAX_WIDTH = 720  # pixels; larger grids are shrunk, since a page holds many
MAX_BYTES = 2**26


def data_uri(path: Path) -> str | None:
    """Return a PNG as a data URI, or None where it is none; written anew, so only pixels travel.

    The name of a file says nothing of its content, and some formats are programs that others run.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow only warns of decompression bombs
            with Image.open(io.BytesIO(read_bytes(path, MAX_BYTES)), formats=("PNG",)) as picture:
                picture.thumbnail((MAX_WIDTH, 4 * MAX_WIDTH))
                grey = picture.mode in ("1", "L")
                buffer = io.BytesIO()
                picture.convert("L" if grey else "RGB").save(buffer, format="PNG", optimize=True)
    except Exception:  # damaged pictures raise errors of every kind
        return None
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
