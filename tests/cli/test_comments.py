"""`--help` shows what the yaml files and docstrings say beside the values."""

from __future__ import annotations

import re

from vaebench.cli.comments import annotated


def line(out: str, key: str, after: str = "") -> str:
    return next(text for text in out.partition(after)[2].splitlines() if text.strip().startswith(f"{key}:"))


def test_comments_of_files_and_docstrings(command):
    out = command("train", "--help").out.partition("== Configuration")[2]
    assert re.fullmatch(r"  num_steps: null +# instead of num_epochs", line(out, "num_steps", "trainer:"))
    assert re.search(r"resume: null +# a run directory to continue", out)
    assert re.search(r"hidden_dims: +# Widths of the encoder's layers", out)  # from the docstring of the class


def test_comments_of_the_chosen_options(command):
    out = command("train", "trainer=adversarial", "callback=[ema]", "--help").out
    assert re.search(r"num_critic_steps: 1 +# updates of the critic per step", out)
    assert re.search(r"num_steps: null +# instead of num_epochs", out)  # of the option that it builds upon


def test_no_line_is_wider_than_the_page():
    text = "a: 1\nb:\n  c: 2\n  d:\n  - 3\n"
    found = annotated(text, {"a": "x" * 200, "b.c": "short", "b.d": "list"}, 40)
    assert found == f"a: 1    # {'x' * 29}…\nb:\n  c: 2  # short\n  d:    # list\n  - 3\n"
    assert max(map(len, found.splitlines())) == 40
