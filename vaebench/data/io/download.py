"""Files of published data sets: used where they lie, downloaded where they do not."""

from __future__ import annotations

import contextlib
import contextvars
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from vaebench.data.io.torchvision_import import import_torchvision

TIMEOUT_SECONDS = 30.0
_is_forbidden = contextvars.ContextVar("downloads are forbidden", default=False)


class DownloadForbiddenError(ValueError):
    """A file is missing, and must not be downloaded now."""


def data_root(root: str | os.PathLike[str]) -> Path:
    """Return `root` as a path.

    Raises:
        ValueError: It is not set, or it exists and is not a folder.
    """
    if root is None or not str(root):
        raise ValueError(f"expected dataset.root to name a folder, got {root!r}")
    path = Path(root).expanduser()
    if path.exists() and not path.is_dir():
        raise ValueError(f"expected dataset.root to be a folder, got the file '{path}'")
    return path


@contextlib.contextmanager
def downloads_forbidden(is_forbidden: bool = True) -> Iterator[None]:
    """Context in which missing data are an error: a stored configuration is not the user's wish."""
    token = _is_forbidden.set(is_forbidden)
    try:
        yield
    finally:
        _is_forbidden.reset(token)


def download(folder: Path, filename: str, urls: Sequence[str], md5: str) -> Path:
    """Download one file, check it, and only then give it its name.

    Args:
        folder: Where it belongs; made if needed.
        filename: What it is called there.
        urls: Where it can be had, tried in turn.
        md5: Its checksum.

    Returns:
        The file's path.

    Raises:
        ValueError: No address gave the right file, or the folder cannot be written.
    """
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    where = f"'{folder / filename}' is not there (looked for by dataset.root)"
    if _is_forbidden.get():
        raise DownloadForbiddenError(f"{where}; what a stored configuration names is not downloaded unasked")
    try:
        # Download beside the destination, so that the last step is a rename and a failure leaves nothing behind.
        temporary = tempfile.mkdtemp(prefix=".download-", dir=existing)
    except OSError as error:
        raise ValueError(f"{where} and cannot be downloaded into it: {error.strerror}; change dataset.root") from error
    reasons = []
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        utils = import_torchvision().datasets.utils
        for url in urls:
            try:
                utils.download_url(url, root=temporary, filename=filename, md5=md5)
                folder.mkdir(parents=True, exist_ok=True)
                os.replace(Path(temporary, filename), folder / filename)
                return folder / filename
            except (OSError, RuntimeError, HTTPException) as error:
                reason = getattr(error, "reason", None) or error
                reasons.append(f"{urlsplit(url).hostname}: {str(reason) or type(error).__name__}")
    finally:
        socket.setdefaulttimeout(timeout)
        shutil.rmtree(temporary, ignore_errors=True)
    raise ValueError(
        f"{where} and could not be downloaded ({'; '.join(reasons)}); put the file there, "
        "or set dataset.root to the folder that holds it"
    )
