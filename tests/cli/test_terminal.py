"""Terminals of 80 columns, and streams that are not UTF-8."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from vaebench.cli import encoding


@pytest.mark.parametrize("name", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("words", [["list", "models"], ["--help"], ["nothing-±-\udcff"], ["train", "--help"]])
def test_an_encoding_that_lacks_characters(tmp_path, name, words):
    environment = {**os.environ, "PYTHONIOENCODING": name}
    command = [sys.executable, "-m", "vaebench", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == (2 if "\udcff" in words[0] else 0)
    assert b"Traceback" not in done.stderr
    (done.stdout + done.stderr).decode(name)


def test_what_stands_in_for_a_character():
    encoding.spell_out()
    assert "3 ± 1 … né \udcff ☃".encode("ascii", encoding.NAME) == rb"3 +- 1 ... ne \xff ?"


def on_a_terminal(*words: str, columns: int, cwd) -> str:
    """What a command writes on a terminal of some width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    environment["TERM"] = "dumb"
    command = [sys.executable, "-m", "vaebench", *words]
    process = subprocess.Popen(command, cwd=cwd, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the other end was closed
            break
        if not chunk:
            break
        written += chunk
    process.wait()
    os.close(ours)
    return written.decode()


def test_a_list_fits_and_keeps_addresses_whole(tmp_path):
    lines = on_a_terminal("list", "samplers", columns=80, cwd=tmp_path).splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    assert any(line.strip().endswith("https://arxiv.org/abs/1903.12436") for line in lines)


def test_help_fits(tmp_path):
    out = on_a_terminal("train", "--help", columns=80, cwd=tmp_path).partition("== Configuration")[2]
    assert "# instead of num_epochs" in out
    assert max(len(line) for line in out.splitlines() if "#" in line) <= 80
