"""Completion in the shell: verbs, runs and paths from here; groups, options and keys from Hydra."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from vaebench.cli import application
from vaebench.cli.errors import MISTAKE
from vaebench.cli.paths import RUNS, expanded, is_path
from vaebench.factory.configurations import defaults, folders, keys
from vaebench.factory.groups import GROUPS, TABLE
from vaebench.runs.run import Run

SHELLS = ("bash", "zsh", "fish")
NAMES_OF_RUNS = (RUNS, "resume", "init_from")
MAX_FOLDERS = 2_000  # searched for runs
INSTALL = {
    # One candidate per line, since names may hold spaces; bash escapes them.
    "bash": r"""_vaebench() {
    local IFS=$'\n' found word
    COMPREPLY=()
    found=$(COMP_LINE=${COMP_LINE:0:COMP_POINT} "${COMP_WORDS[0]}" -sc query=bash)
    for word in $found; do printf -v word %q "$word"; COMPREPLY+=("${word//=\\~/=~}"); done
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -F _vaebench vaebench""",
    "zsh": r"""_vaebench() {
    local -a found
    found=("${(@f)$(COMP_LINE="${words[1,CURRENT]}" "${words[1]}" -sc query=zsh)}")
    compadd -U -S '' -- ${found:#}
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
compdef _vaebench vaebench""",
}
UNINSTALL = {"bash": "complete -r vaebench; unset -f _vaebench", "zsh": "compdef -d vaebench; unfunction _vaebench"}


def answer(words: Sequence[str], verbs: Sequence[str]) -> int:
    """Answer `vaebench -sc install=bash`, `uninstall=` or what the shell itself asks: `query=`.

    Args:
        words: What follows `-sc`.
        verbs: The verbs.

    Returns: the exit code.
    """
    action, _, shell = words[0].partition("=") if len(words) == 1 else ("", "", "")
    if action not in ("install", "uninstall", "query") or shell not in SHELLS:
        print("vaebench: -sc takes install=SHELL or uninstall=SHELL, with bash, zsh or fish", file=sys.stderr)
        return MISTAKE
    scripts = INSTALL if action == "install" else UNINSTALL
    if action != "query" and shell in scripts:
        print(scripts[shell])
    elif action != "query":
        _hydra("train", words)
    else:
        found: list[str] = []
        with (
            contextlib.suppress(Exception, SystemExit),
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stderr(nowhere),
        ):
            found = candidates(os.environ["COMP_LINE"], verbs)
        print("".join(f"{word}\n" for word in found), end="")  # an error in the middle of the user's line helps nobody
    return 0


def candidates(line: str, verbs: Sequence[str]) -> list[str]:
    """Return what may stand in place of the last word of a line, in which words may be quoted or escaped."""
    _, *before, word = _words(line)
    if not before:
        return _beginning(word, verbs)
    verb, before = before[0], before[1:]
    if verb == "list":
        return _beginning(word, [group.title for group in TABLE])
    if verb not in verbs:
        return []
    if before and before[-1] in ("--config-dir", "-cd", "--config-path", "-cp"):
        return _paths(word, only_folders=True)
    key, equals, value = word.partition("=")
    if equals and key in NAMES_OF_RUNS:
        return [f"{key}={path}" for path in _runs(value)]
    if equals and is_path(key):
        return [f"{key}={path}" for path in _paths(value, only_folders=not key.endswith(("path", "file")))]
    found = _of_hydra(verb, before, word)
    if not equals and RUNS in keys(verb, folders()):
        found += _runs(word) if word else []
    return found


def _words(line: str) -> list[str]:
    """The words of a line up to the cursor; the last may be empty, or lack its closing quote."""
    for closing in ("", "'", '"', "\\"):
        with contextlib.suppress(ValueError):
            words = shlex.split(line + closing)
            return words if line and not line[-1].isspace() else [*words, ""]
    return line.split()


def _beginning(word: str, choices: Iterable[str]) -> list[str]:
    return [choice for choice in choices if choice.startswith(word)]


def _runs(typed: str) -> list[str]:
    """Runs of which the path begins as typed, the newest first; otherwise folders."""
    place = Path(expanded(typed))
    start = place if typed.endswith("/") and place.is_dir() else place.parent
    found = [run.path for run in Run.find(start if typed else "outputs", MAX_FOLDERS)]
    home = [path for path in found if str(path).startswith(expanded(typed))]
    names = [typed + str(path)[len(expanded(typed)) :] for path in reversed(home)]
    return names or _paths(typed, only_folders=True)


def _paths(typed: str, only_folders: bool) -> list[str]:
    above, name = os.path.split(typed)
    with contextlib.suppress(OSError):
        entries = sorted(os.scandir(expanded(above) or "."), key=lambda entry: entry.name)
        return [
            os.path.join(above, entry.name) + "/" * entry.is_dir()
            for entry in entries
            if entry.name.startswith(name or "") and (name.startswith(".") or not entry.name.startswith("."))
            if entry.is_dir() or not only_folders
        ]
    return []


def _of_hydra(verb: str, before: Sequence[str], word: str) -> list[str]:
    """Groups, options and keys; not the groups of other verbs, which lie in the same folder."""
    before = [other for other in before if other not in ("-m", "--multirun") and "=" in other]  # flags stop the parser
    os.environ["COMP_LINE"] = " ".join(["vaebench", *before, word])
    os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    with contextlib.redirect_stdout(io.StringIO()) as out:
        _hydra(verb, ["query=fish"])
    chosen, roots = defaults(verb, folders()), keys(verb, folders())

    def is_own(candidate: str) -> bool:
        name = candidate.lstrip("+~").partition("=")[0]
        top = name.partition("/")[0].partition(".")[0].partition("@")[0]
        if top == "hydra":
            return word.startswith("hydra")
        return top not in GROUPS or top in chosen or (top in roots and "." in name)

    return [candidate for candidate in out.getvalue().splitlines() if candidate and is_own(candidate)]


def _hydra(verb: str, words: Sequence[str]) -> None:
    application.register_search_path()
    application.call_hydra("vaebench", verb, ["-sc", *words], application.Task(verb))
