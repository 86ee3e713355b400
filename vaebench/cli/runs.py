"""The runs that a verb reads, named in one way: directories, folders of them, globs, one or several."""

from __future__ import annotations

import copy
import glob
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vaebench.cli.errors import CommandError
from vaebench.cli.paths import RUNS, expanded, quoted, several, unquoted
from vaebench.report.reading import find_runs
from vaebench.runs.run import Run

if TYPE_CHECKING:
    from omegaconf import DictConfig


def with_runs(words: Sequence[str], options: Collection[str], is_sweep: bool) -> list[str]:
    """Turn plain words (`vaebench evaluate outputs/a outputs/b`) and `run=…` into one override.

    Args:
        words: The overrides of a verb that reads runs.
        options: Names that a user may have meant as an option; they are left for a better hint.
        is_sweep: Whether commas in `run=a,b` separate the jobs of a sweep.

    Raises:
        CommandError: runs are named twice, or a glob matches none.
    """
    plain = [word for word in words if _is_plain(word, options)]
    named = [word for word in words if word.startswith(f"{RUNS}=") and word not in plain]
    rest = [word for word in words if word not in plain and word not in named]
    if plain and named:
        raise CommandError(f"'{named[0]}' and '{plain[0]}' both name runs; write them all as plain words")
    if len(named) > 1:
        raise CommandError(f"'{RUNS}' is given twice ({' and '.join(named)}); write {RUNS}=[a,b] for several")
    if plain:
        return [*rest, f"{RUNS}=[{','.join(quoted(expanded(path)) for path in plain)}]"]
    if not named or named[0] in (f"{RUNS}=", f"{RUNS}=null"):
        return [*rest, *named]
    value = named[0].partition("=")[2]
    paths = _globbed(value) if value.startswith("glob(") and value.endswith(")") else several(value)
    written = [quoted(expanded(path)) for path in paths]
    return [*rest, f"{RUNS}={','.join(written) if is_sweep or len(written) == 1 else '[' + ','.join(written) + ']'}"]


def _is_plain(word: str, options: Collection[str]) -> bool:
    if os.path.exists(expanded(word)):
        return True
    return "=" not in word and not word.startswith(("~", "+")) and word not in options


def _globbed(value: str) -> list[str]:
    """The paths of Hydra's `glob(pattern)`, which itself chooses among the options of groups only."""
    pattern = unquoted(value.removeprefix("glob(").removesuffix(")"))
    return [str(path) for path in find_runs([expanded(pattern)])]


def each_run(cfg: DictConfig) -> list[DictConfig]:
    """Return one configuration for each run that a configuration names, with `run` as a single directory.

    Raises:
        ValueError: there is no run in one of the places.
    """
    named = cfg.get(RUNS)
    if named is None:
        return [cfg]
    places = [named] if isinstance(named, str) else list(named)
    if len(places) == 1 and _is_one(str(places[0])):
        paths = places
    else:
        paths = [str(path) for path in find_runs([str(place) for place in places])]
    return [_with(cfg, path) for path in paths]


def _is_one(place: str) -> bool:
    """Whether a place is to be opened as a run, which also says best what is wrong with it."""
    path = Path(place)
    has_beneath = path.is_dir() and not (path / "config.yaml").exists() and bool(Run.find(path, 1_000))
    return not has_beneath and (path.exists() or not glob.has_magic(place))


def _with(cfg: DictConfig, path: str) -> DictConfig:
    one = copy.deepcopy(cfg)
    one[RUNS] = path
    return one
