"""The words after a verb: checked, and put in the order that Hydra wants."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from vaebench.cli.errors import CommandError
from vaebench.cli.paths import RUNS, expanded, quoted, unquoted, with_quoted_path
from vaebench.cli.runs import with_runs
from vaebench.factory.configurations import defaults, keys, options
from vaebench.messages import did_you_mean
from vaebench.runs.run import Run


def arrange(verb: str, words: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Return the words for Hydra: overrides first, flags last (Hydra 1.3 wants them there).

    Raises:
        CommandError: a flag that Hydra does not know, or an override that is none, has no value, or stands there twice.
    """
    parser = _parser()
    parsed = parser.parse_intermixed_args(list(words))
    if parsed.config_dir is not None:
        parsed.config_dir = expanded(parsed.config_dir)
        if not Path(parsed.config_dir).is_dir():
            raise CommandError(f"--config-dir: there is no folder '{parsed.config_dir}'")
        folders = [*folders, Path(parsed.config_dir)]
    overrides = list(parsed.overrides)
    if RUNS in keys(verb, folders):
        chosen = defaults(verb, folders)
        names = {name for group, names in options(folders).items() if group in chosen for name in names}
        overrides = with_runs(overrides, names, parsed.multirun)
    overrides = [with_quoted_path(word, parsed.multirun) for word in overrides]
    overrides = _without_nulls(_checked(verb, overrides, folders), defaults(verb, folders))
    if parsed.multirun and any(_key(word) == "hydra.run.dir" for word in overrides):
        raise CommandError("hydra.run.dir is the place of one run; with -m give hydra.sweep.dir")
    if any(_key(word) == "resume" for word in overrides):
        overrides = _with_resume(overrides, parsed.multirun)
    return [*overrides, *_flags(parser, parsed)]


def _parser() -> argparse.ArgumentParser:
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    flags = [flag for action in parser._actions for flag in action.option_strings]

    def refuse(message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ").split()[0]
        if message.startswith("unrecognized arguments"):
            raise CommandError(f"there is no flag '{unknown}'{did_you_mean(unknown, flags)}")
        raise CommandError(message)

    parser.error = refuse  # type: ignore[method-assign]
    return parser


def _flags(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> list[str]:
    words: list[str] = []
    for action in parser._actions:
        value = getattr(parsed, action.dest, action.default)
        if action.option_strings and value != action.default:
            words += action.option_strings[:1] if value is True else [action.option_strings[0], str(value)]
    return words


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def _checked(verb: str, overrides: list[str], folders: Sequence[Path]) -> list[str]:
    groups, chosen = options(folders), defaults(verb, folders)
    seen: dict[str, str] = {}
    for word in overrides:
        _, equals, value = word.partition("=")
        key = _key(word)
        if not equals and not word.startswith("~"):
            meant = [f"{group}={word}" for group, names in groups.items() if word in names]
            hint = f"; did you mean {' or '.join(meant)}?" if meant else " or group=option"
            raise CommandError(f"'{word}' is not of the form key=value{hint}")
        if equals and not value:
            raise CommandError(f"'{word}' has no value; write {key}=VALUE, or {key}=null for none")
        if key in seen:
            raise CommandError(f"'{key}' is given twice ({seen[key]} and {word}); give it once")
        if word.startswith("+") and not set(key) & set("./@") and key not in groups:
            raise CommandError(f"'{word}' adds a key that nothing reads{did_you_mean(key, keys(verb, folders))}")
        if value.startswith("[") and key in groups and not isinstance(chosen.get(key, []), list):
            raise CommandError(f"'{word}': expected one {key}; to run several, give {key}={value.strip('[]')} and -m")
        is_needed = isinstance(chosen.get(key, ""), str) and key in groups
        if is_needed and (word.startswith("~") or value == "null"):
            raise CommandError(f"'{word}': a {key} is needed; choose one of: {', '.join(groups[key])}")
        seen[key] = word
    return overrides


def _without_nulls(overrides: list[str], chosen: dict[str, Any]) -> list[str]:
    """Take `group=null`, as the configuration shows it, for no choice: Hydra wants a name or a list."""
    written = []
    for word in overrides:
        key = _key(word)
        if not word.endswith("=null") or key not in chosen:
            written.append(word)
        elif isinstance(chosen[key], list):
            written.append(f"{key}=[]")
    return written


def _with_resume(overrides: list[str], is_sweep: bool) -> list[str]:
    """Point Hydra's run directory at the run that is continued, so that no new one is made."""
    keys = {_key(word): word.partition("=")[2] for word in overrides}
    text = unquoted(keys["resume"])
    if text == "null":
        return overrides
    if is_sweep:
        raise CommandError("resume continues one run; leave out -m")
    if "hydra.run.dir" in keys:
        raise CommandError("resume and hydra.run.dir both name the run directory; give one of them")
    if not Run(text).config.is_file():
        try:
            Run.open(text)
        except ValueError as error:
            raise CommandError(str(error).replace("run:", "resume:", 1)) from None
    return [
        *(word for word in overrides if _key(word) != "resume"),
        f"resume={quoted(text)}",
        f"hydra.run.dir={quoted(text)}",
    ]
