"""Completion in the shell: verbs and the groups of `list` from here, everything after another verb from Hydra."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

from vaebench.cli import application
from vaebench.cli.errors import MISTAKE
from vaebench.factory.groups import TABLE


def answer(words: Sequence[str], verbs: Sequence[str]) -> int:
    """Answer `vaebench -sc install=bash`, `uninstall=` or what the shell itself asks: `query=`.

    Args:
        words: What follows `-sc`.
        verbs: The verbs.

    Returns: the exit code.
    """
    action, _, shell = words[0].partition("=") if len(words) == 1 else ("", "", "")
    if action not in ("install", "uninstall", "query") or shell not in ("bash", "zsh", "fish"):
        print("vaebench: -sc takes install=SHELL or uninstall=SHELL, with bash, zsh or fish", file=sys.stderr)
        return MISTAKE
    if action != "query":
        return _hydra("train", words)
    with (
        contextlib.suppress(Exception, SystemExit),
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stderr(nowhere),
    ):
        _query(words, verbs, shell)  # a shell in the middle of a line has no use for an error
    return 0


def _query(words: Sequence[str], verbs: Sequence[str], shell: str) -> None:
    line = os.environ["COMP_LINE"]
    typed = line.split()
    if len(typed) == 1 or (len(typed) == 2 and not line.endswith(" ")):
        print(*[verb for verb in verbs if verb.startswith("".join(typed[1:2]))], sep="\n" if shell == "fish" else " ")
        return
    program, verb, *rest = typed
    if verb == "list":
        prefix = "" if line.endswith(" ") else rest[-1]
        print(
            *[group.title for group in TABLE if group.title.startswith(prefix)],
            sep="\n" if shell == "fish" else " ",
        )
    elif verb in verbs:
        # Hydra takes the program's name off the line. Flags in the middle would stop its parser.
        rest = [word for word in rest if word not in ("-m", "--multirun")]
        os.environ["COMP_LINE"] = " ".join([program, *rest]) + " " * (line.endswith(" ") or not rest)
        os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
        _hydra(verb, words)


def _hydra(verb: str, words: Sequence[str]) -> int:
    application.register_search_path()
    application.call_hydra("vaebench", verb, ["-sc", *words], application.Task(verb))
    return 0
