"""Values that are paths. They are taken as they are typed, whatever characters they hold: Hydra's grammar reads no path
with `~`, spaces, `=`, `,`, `[` or `#` unless it is quoted for Hydra as well as for the shell.
"""

from __future__ import annotations

import os
import re

RUNS = "run"
LITERAL = ("resume", "init_from", "output")  # keys in which `${…}` is literal
_KEY_OF_A_PATH = re.compile(r"(?:.*[._])?(?:path|root|dir|file|folder)")
_SWEEP = re.compile(r"(?:choice|glob|interval|range|shuffle|sort|tag)\(.*\)", re.DOTALL)


def is_path(key: str) -> bool:
    """Return whether the value of a key is one path, by its name: `dataset.root`, `resume`, `hydra.run.dir`."""
    return key in LITERAL or _KEY_OF_A_PATH.fullmatch(key) is not None


def with_quoted_path(word: str, is_sweep: bool) -> str:
    """Return an override with its value quoted for Hydra if it is a path; other overrides stay as they are.

    Args:
        word: `key=value`, or any other word.
        is_sweep: Whether commas separate the jobs of a sweep.
    """
    name, equals, value = word.partition("=")
    key = name.lstrip("+")
    if not equals or not is_path(key) or key == "resume" or value in ("", "null"):  # resume is read before Hydra
        return word
    if is_sweep and _SWEEP.fullmatch(value):
        return word
    return f"{name}={','.join(quoted_path(path, key in LITERAL) for path in several(value, is_sweep))}"


def several(value: str, may_be_several: bool = True) -> list[str]:
    """Return the paths that a value names: itself if there is such a path, otherwise the parts of `a,b` and `[a,b]`."""
    if not may_be_several or os.path.exists(expanded(value)):
        return [unquoted(value)]
    inner = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    parts = re.findall(r"""\s*("(?:\\.|[^"])*"|'(?:\\.|[^'])*'|[^,]+)\s*(?:,|$)""", inner)
    return [unquoted(part.strip()) for part in parts] or [value]


def expanded(path: str) -> str:
    """Return a path with the home directory in place of `~`, which a shell leaves alone behind `key=`."""
    return os.path.expanduser(path)


def unquoted(value: str) -> str:
    """Return what a value stands for that was already quoted for Hydra; any other value is returned as it is."""
    if len(value) < 2 or value[0] not in "'\"" or value[-1] != value[0]:
        return value
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(f"key={value}").value()
    except HydraException:  # not quoting: the quotes belong to the path
        return value
    text = parsed if isinstance(parsed, str) else str(parsed)
    return re.sub(r"(\\*)\\\$\{", lambda found: found[1][: len(found[1]) // 2] + "${", text)  # undoes `quoted`


def quoted_path(path: str, is_literal: bool = True) -> str:
    """Return a path as a value in Hydra's grammar."""
    return quoted(expanded(path), with_interpolations=not is_literal)


def quoted(text: str, *, with_interpolations: bool = False) -> str:
    """Return `text` as a string in Hydra's grammar: taken literally, except `${…}` where interpolations are live."""
    if not with_interpolations:
        text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    text = re.sub(r"(\\*)('|$)", lambda end: end[1] * 2 + ("\\'" if end[2] else ""), text)
    return f"'{text}'"
