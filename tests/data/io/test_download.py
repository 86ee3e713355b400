from __future__ import annotations

import hashlib
import io
import os
import socket
import urllib.request
from pathlib import Path

import pytest

from vaebench.data.io.download import data_root, download

CONTENT = b"a published file"
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@pytest.fixture
def server(monkeypatch):
    """Addresses and what they answer: bytes, or an error to raise."""
    answers: dict[str, bytes | Exception] = {}

    class Response(io.BytesIO):
        url = None
        length = len(CONTENT)

    def urlopen(request, *args, **kwargs):
        answer = answers.get(request.full_url, urllib.request.URLError("no such host"))
        if isinstance(answer, Exception):
            raise answer
        return Response(answer)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return answers


def test_a_file_is_downloaded_checked_and_named(tmp_path, server, capsys):
    server["http://second/file"] = CONTENT
    folder = tmp_path / "a" / "b"
    path = download(folder, "file", ["http://first/file", "http://second/file"], MD5)
    assert path == folder / "file"
    assert path.read_bytes() == CONTENT
    assert [p.name for p in tmp_path.rglob("*")] == ["a", "b", "file"]


@pytest.mark.parametrize(
    "answer", [b"something else", b"", ConnectionResetError("reset"), TimeoutError("timed out"), OSError("broken")]
)
def test_a_wrong_or_broken_download_leaves_nothing(tmp_path, server, answer):
    server["http://first/file"] = answer
    with pytest.raises(ValueError, match=r"file' is not there .*first: .*dataset\.root"):
        download(tmp_path / "data", "file", ["http://first/file"], MD5)
    assert list(tmp_path.iterdir()) == []
    assert socket.getdefaulttimeout() is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_sentence(tmp_path, server):
    server["http://first/file"] = CONTENT
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match=r"cannot be downloaded into it: Permission denied; change dataset\.root"):
        download(tmp_path / "data", "file", ["http://first/file"], MD5)


def test_a_folder_that_cannot_be_written_is_one_sentence(server):
    server["http://first/file"] = CONTENT
    with pytest.raises(ValueError, match=r"change dataset\.root"):
        download(Path("/proc/self/nowhere"), "file", ["http://first/file"], MD5)


def test_a_root_that_is_no_folder_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match=r"expected dataset\.root to be a folder, got the file"):
        data_root(str(file))
    with pytest.raises(ValueError, match=r"expected dataset\.root to name a folder, got None"):
        data_root(None)
    assert data_root("~/data") == Path.home() / "data"
