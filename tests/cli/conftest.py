"""One command line inside this process, in an empty folder, with a task that a test chooses."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from vaebench.cli.main import main


@dataclass
class Answer:
    """What a command answered."""

    code: int
    out: str
    err: str


def nothing(cfg) -> None:
    pass


@pytest.fixture
def command(monkeypatch, tmp_path) -> Iterator[Callable[..., Answer]]:
    """Call `command("train", "model=vae", task=…)`; the task stands in for the verb's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VAEBENCH_CONF", raising=False)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def call(*words: str, task: Callable = nothing) -> Answer:
        for verb in ("train", "sample", "evaluate", "encode", "report"):
            module = types.ModuleType(f"vaebench.commands.{verb}")
            module.task = task  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, module.__name__, module)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(words)
        return Answer(code, out.getvalue(), err.getvalue())

    before = logging.root.handlers[:], logging.root.level
    yield call
    for handler in set(logging.root.handlers) - set(before[0]):
        handler.close()
    logging.root.handlers[:], logging.root.level = before
