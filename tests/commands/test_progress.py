"""A bar on a terminal, lines elsewhere; the lines come also where nothing advances."""

from __future__ import annotations

import io
import logging
import threading

import pytest

from vaebench.commands import progress as module
from vaebench.commands.progress import progress


class Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.came = threading.Semaphore(0)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.came.release()

    def wait(self) -> str:
        assert self.came.acquire(timeout=60)
        return self.lines[-1]


@pytest.fixture
def recorder():
    handler, log = Recorder(), logging.getLogger(module.__name__)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler
    log.removeHandler(handler)
    log.setLevel(level)


def test_a_line_at_the_start_and_then_now_and_again(recorder, monkeypatch):
    monkeypatch.setattr(module, "EVERY", 0.01)
    with progress("elbo", "example", 180) as done:
        assert recorder.wait() == "elbo: 180 examples"
        assert recorder.wait().startswith("elbo: 0 of 180 examples after ")
        done.advance(100)
        done.advance(50)
        recorder.wait()  # it may have begun before
        recorder.wait()
        assert recorder.wait().startswith("elbo: 150 of 180 examples after ")
    assert not [thread for thread in threading.enumerate() if thread.name.endswith("(say)")]


def test_a_quick_one_is_one_line(recorder):
    with progress("rhvae", "transition") as done:
        done.tell(3, 10)
    assert recorder.lines == ["rhvae: started"]
    assert (done.done, done.total) == (3, 10)


def test_a_failure_ends_the_lines(recorder, monkeypatch):
    monkeypatch.setattr(module, "EVERY", 0.01)

    def fail() -> None:
        with progress("elbo", "example", 180):
            recorder.wait()
            recorder.wait()
            raise FloatingPointError

    with pytest.raises(FloatingPointError):
        fail()
    assert not [thread for thread in threading.enumerate() if thread.name.endswith("(say)")]


def test_on_a_terminal_it_is_a_bar(recorder, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", stream := Terminal())
    with progress("elbo", "example", 180) as done:
        done.advance(60)
        done.advance(60)
    assert "120/180" in stream.getvalue()
    assert not recorder.lines
