from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator

import pytest

from tests.commands.training_runs import Answer
from vaebench.cli.main import main


@pytest.fixture
def command(monkeypatch, tmp_path) -> Iterator[Callable[..., Answer]]:
    monkeypatch.chdir(tmp_path)
    for name in ("VAEBENCH_CONF", "HYDRA_FULL_ERROR", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    before = logging.root.handlers[:], logging.root.level

    def call(*words: str) -> Answer:
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(["train", *words])
        finally:
            for handler in set(logging.root.handlers) - set(before[0]):
                handler.close()
            logging.root.handlers[:] = before[0]
            logging.root.setLevel(before[1])
        return Answer(code, out.getvalue(), err.getvalue())

    return call
