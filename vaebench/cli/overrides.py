"""Check the words after a verb, and put them in the order that Hydra wants."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from vaebench.cli.errors import CommandError
from vaebench.cli.hints import for_flag
from vaebench.cli.paths import RUNS, expanded, quoted, unquoted, with_quoted_path
from vaebench.cli.runs import with_runs
from vaebench.factory.configurations import defaults, keys, options
from vaebench.messages import did_you_mean
from vaebench.runs.run import Run
from vaebench.sweeps.local import JOB

ALWAYS_SEVERAL = ("benchmark",)  # verbs whose every command is a sweep
TOGETHER = {"benchmark": ("metric",)}  # groups in which several options are one choice, even in a sweep
SUBMITTING = ("hardware=slurm", "hardware=slurm_ddp", "hardware=submitit_local")


@dataclass(frozen=True)
class Arranged:
    """A command line as Hydra takes it.

    Attributes:
        overrides: Checked, with paths quoted.
        flags: Hydra 1.3 wants them last.
        parsed: The flags by name.
    """

    overrides: list[str]
    flags: list[str]
    parsed: argparse.Namespace


def arrange(verb: str, words: Sequence[str], folders: Sequence[Path]) -> Arranged:
    """Check the words that follow a verb, and put them in order.

    Raises:
        CommandError: an unknown flag, or an override that is malformed, has no value, or is given twice.
    """
    parser = _parser(verb, words, folders)
    parsed = parser.parse_intermixed_args(list(words))
    parsed.multirun = parsed.multirun or verb in ALWAYS_SEVERAL
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
    if verb == "sample":  # `sampler.y=` is accepted for `y=`
        overrides = [word.removeprefix("sampler.") if _key(word) == "sampler.y" else word for word in overrides]
    _refuse_submission_of_one(verb, overrides, parsed.multirun)
    overrides = [with_quoted_path(word, parsed.multirun) for word in overrides]
    overrides = _checked(verb, overrides, folders)
    overrides = _as_choices(verb, overrides, defaults(verb, folders), parsed.multirun)
    if parsed.multirun:
        overrides = _with_each_choice(overrides)
    if parsed.multirun and any(_key(word) == "hydra.run.dir" for word in overrides):
        raise CommandError("hydra.run.dir is the place of one run; with -m give hydra.sweep.dir")
    if any(_key(word) == "resume" for word in overrides):
        overrides = _with_resume(overrides, parsed.multirun)
    return Arranged(overrides, _flags(parser, parsed), parsed)


def _refuse_submission_of_one(verb: str, overrides: Sequence[str], is_sweep: bool) -> None:
    for word in overrides:
        if word in SUBMITTING and not is_sweep and JOB not in os.environ:
            if verb == "train":
                raise CommandError(f"{word} submits the jobs of a sweep, also of a single one; add -m")
            raise CommandError(f"{word} is for vaebench train -m; vaebench {verb} computes here: choose hardware=auto")


def _parser(verb: str, words: Sequence[str], folders: Sequence[Path]) -> argparse.ArgumentParser:
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    flags = [flag for action in parser._actions for flag in action.option_strings]

    def refuse(message: str) -> NoReturn:
        if not message.startswith("unrecognized arguments"):
            raise CommandError(message)
        unknown, equals, value = message.removeprefix("unrecognized arguments: ").split()[0].partition("=")
        after = [*words[words.index(unknown) + 1 :], "-"][0] if unknown in words else "-"
        given = value if equals else None if after.startswith("-") or "=" in after else after
        raise CommandError(f"there is no flag '{unknown}'{for_flag(unknown, given, flags, verb, folders)}")

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
            meant += [f"resume={word}"] if verb == "train" and Run(word).config.is_file() else []
            hint = f"; did you mean {' or '.join(meant)}?" if meant else " or group=option"
            hint = "; leave out the spaces around '='" if "=" in overrides else hint
            raise CommandError(f"'{word}' is not of the form key=value{hint}")
        if key in chosen and not groups.get(key) and value != "null":
            raise CommandError(
                f"'{word}': there is no {key} yet; leave it out, or write your own into FOLDER/{key}/NAME.yaml and add "
                f"--config-dir FOLDER {key}=NAME"
            )
        if equals and not value:
            one_of = f"{key}=VALUE" if key not in groups else f"one of {', '.join(f'{key}={n}' for n in groups[key])}"
            raise CommandError(f"'{word}' has no value; write {one_of}{_or_null(key, chosen)}")
        if key in seen:
            raise CommandError(f"'{key}' is given twice ({seen[key]} and {word}); give it once")
        if word.startswith("+") and not set(key) & set("./@") and key not in groups:
            raise CommandError(f"'{word}' adds a key that nothing reads{did_you_mean(key, keys(verb, folders))}")
        if value.startswith("[") and key in groups and not isinstance(chosen.get(key, []), list):
            raise CommandError(f"'{word}': expected one {key}; to run several, give {key}={value.strip('[]')} and -m")
        if value.startswith("glob("):
            _check_glob(word, key, groups)
        is_needed = isinstance(chosen.get(key, ""), str) and key in groups
        if is_needed and (word.startswith("~") or value == "null"):
            raise CommandError(f"'{word}': a {key} is needed; choose one of: {', '.join(groups[key])}")
        seen[key] = word
    return overrides


def _or_null(key: str, chosen: dict[str, Any]) -> str:
    return "" if isinstance(chosen.get(key), str) else f", or {key}=null for none"


def _check_glob(word: str, key: str, groups: dict[str, list[str]]) -> None:
    """Refuse a glob that would give a sweep without jobs."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob

    if key not in groups:
        raise CommandError(f"'{word}': glob chooses among the options of a group; list the values: {key}=a,b")
    pattern = OverridesParser.create().parse_override(word).value()
    if isinstance(pattern, Glob) and not pattern.filter(groups[key]):
        raise CommandError(f"'{word}' matches none of: {', '.join(groups[key])}")


def _as_choices(verb: str, overrides: list[str], chosen: dict[str, Any], is_sweep: bool) -> list[str]:
    """Write choices as Hydra wants them.

    `group=null`, as the configuration shows it, chooses nothing; `metric=a,b` chooses both unless it is a sweep,
    because shells give brackets another meaning.
    """
    written = []
    for word in overrides:
        key, _, value = word.partition("=")
        is_list, is_one = isinstance(chosen.get(key), list), not is_sweep or key in TOGETHER.get(verb, ())
        if value == "null" and key in chosen:
            written += [f"{key}=[]"] * is_list
        elif is_list and "," in value and value[0] not in "[('\"" and is_one:
            written.append(f"{key}=[{value}]")
        else:
            written.append(word)
    return written


def _with_each_choice(overrides: list[str]) -> list[str]:
    """Write settings of a group that takes several values as a choice of one, which Hydra sets in each job alone.

    It composes one configuration with the default option beforehand, which may lack the setting:
    `sampler=mala,hmc sampler.num_chains=4`.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()

    def is_sweep(word: str) -> bool:
        try:
            return parser.parse_override(word).is_sweep_override()
        except HydraException:  # reported later, as a sentence
            return True

    swept = {word.partition("=")[0] for word in overrides if is_sweep(word)}
    written = []
    for word in overrides:
        key, equals, value = word.partition("=")
        is_of_swept = equals and key[0] not in "+~" and "." in key and key.partition(".")[0] in swept
        written.append(f"{key}=choice({value})" if is_of_swept and not is_sweep(word) else word)
    return written


def _with_resume(overrides: list[str], is_sweep: bool) -> list[str]:
    """Set Hydra's run directory to the run that continues, so that no new one is made."""
    keys = {_key(word): word.partition("=")[2] for word in overrides}
    text = expanded(unquoted(keys["resume"]))
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
