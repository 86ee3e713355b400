"""Pictures of a run inside a page."""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path

MAX_WIDTH = 720  # pixels; larger grids are shrunk, since a page holds many


def data_uri(path: Path) -> str | None:
    """Return a picture as a data URI, or None where it is no picture; written anew, so only pixels travel."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a picture that unfolds into more than memory holds is only warned about
            with Image.open(path) as picture:
                picture.thumbnail((MAX_WIDTH, 4 * MAX_WIDTH))
                grey = picture.mode in ("1", "L")
                buffer = io.BytesIO()
                picture.convert("L" if grey else "RGB").save(buffer, format="PNG", optimize=True)
    except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError):
        return None
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
