"""From an error to an exit code and one sentence: what was expected, what came, which key to change."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaebench.cli import hints
from vaebench.factory.configurations import defaults, keys, options
from vaebench.factory.groups import MANY, by_word
from vaebench.messages import did_you_mean, printable

LESS_MEMORY = "lower batch_size, num_samples, num_chains or another size that was set, or choose a smaller model"
DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130


class CommandError(ValueError):
    """A mistake in the command line; its text is the sentence to show."""


class JobError(Exception):
    """The failure of one job of a sweep, already reported where the job ran; it travels between processes.

    Args:
        code: Exit code that the failure deserves.
        sentence: The report.
    """

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(code, sentence)
        self.code = code


class SweepError(JobError):
    """Some jobs of a sweep did not succeed; a table has said which."""


def explain(error: Exception, verb: str, folders: Sequence[Path], *, started: bool) -> tuple[int, str]:
    """Describe an error in one sentence.

    Args:
        error: What was raised.
        verb: The verb that was running.
        folders: The folders with configurations.
        started: Whether the task itself was running, rather than Hydra preparing it.

    Returns: the exit code and the sentence.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if isinstance(error, YAMLError):
        return MISTAKE, f"a configuration is not valid YAML: {one_line(error)}"
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return MISTAKE, _configuration(error, verb, folders)
    if isinstance(error, UserWarning) and "path=" in str(error):
        folder = str(error).partition("path=")[2].removesuffix(" is not available.")
        return MISTAKE, f"hydra.searchpath: there is no folder '{folder}'"
    system = error if isinstance(error, OSError) else error.__cause__
    if not started and isinstance(system, OSError) and system.filename:
        return _directory(system)
    if isinstance(error, ValueError):
        return MISTAKE, one_line(error)
    if _is_out_of_memory(error):
        return FAILED, f"failed: not enough memory{_asked_for(str(error))}; {LESS_MEMORY}"
    kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
    return FAILED, f"failed: {kind}{one_line(error)}"


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an error is numpy's or torch's word for an allocation that failed, on the CPU or on a GPU."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "allocate memory" in text)
    )


def _asked_for(text: str) -> str:
    """How much was asked for, as the end of a clause, where the error tells."""
    found = re.search(r"allocate ([0-9.]+ ?[KMGTPE]?i?B|[0-9]+ bytes)", text)
    if found is None:
        return ""
    size = found[1].removesuffix(" bytes")
    return f" for {found[1] if size == found[1] else f'{int(size) / 2**30:,.1f} GiB'} more"


def one_line(error: object) -> str:
    """Return an error's text on one line."""
    return printable(" ".join(str(error).split()))


def _directory(error: OSError) -> tuple[int, str]:
    """Describe why the run directory or its log could not be made."""
    where = f"'{error.filename}'"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FAILED, f"failed: no space left for the run directory {where}; free some, or change hydra.run.dir"
    reason = error.strerror or one_line(error)
    return MISTAKE, f"hydra.run.dir: cannot write {where}: {reason}; expected a directory that can be written"


def _configuration(error: Exception, verb: str, folders: Sequence[Path]) -> str:
    """Describe an error of Hydra or OmegaConf, whose own texts suggest what we do not support."""
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

    if isinstance(error, OverrideParseException):
        return _unreadable(str(error.override))
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        valid = error.options or options(folders).get(error.missing_cfg_file.rpartition("/")[0]) or []
        return _no_option(error.missing_cfg_file, valid, folders)
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
        return _no_key(cause, folders)
    if isinstance(cause, MissingMandatoryValue):
        return f"'{cause.full_key}' needs a value; give {cause.full_key}=VALUE"
    if isinstance(cause, OmegaConfBaseException):
        key = f"{cause.full_key}: " if cause.full_key else ""
        return key + one_line(str(cause).partition("full_key:")[0])
    return _composition(one_line(error), verb, folders)


def _unreadable(word: str) -> str:
    """Describe an override that Hydra's grammar cannot parse: unbalanced brackets, or unquoted special characters."""
    key, equals, value = word.partition("=")
    if any(value.count(one) != value.count(other) for one, other in ("[]", "{}", "()")):
        return f"cannot read '{word}': a bracket has no partner"
    if value.startswith("{") and "=" in value:
        return f"cannot read '{word}': inside braces write '{key}={{name:value}}'"
    if not equals or "'" in value or '"' in value:
        return f"cannot read '{word}': expected key=value"
    return f"cannot read '{word}': put a string that holds such characters in two pairs of quotes: '{key}=\"{value}\"'"


def _no_option(missing: str, valid: Sequence[str], folders: Sequence[Path]) -> str:
    group, _, name = missing.rpartition("/")
    if not group:
        names = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
        return f"--config-name: there is no configuration '{name}'{did_you_mean(name, names)}"
    package = hints.package_of(group, name)
    if package is not None:
        return f"{group}={name}: it comes with the package {package}, which is not installed: pip install {package}"
    hint = did_you_mean(name, valid)
    is_listed = group in by_word() and "did you mean" in hint
    everything = f" (vaebench list {by_word()[group].title}: all {len(valid)})" if is_listed else ""
    own = (
        ""
        if os.environ.get("VAEBENCH_CONF")
        else "; options of your own need --config-dir FOLDER or VAEBENCH_CONF=FOLDER"
    )
    return f"{group}={name}: there is no such {group}{hint}{everything}{own}"


def _no_key(error: Any, folders: Sequence[Path]) -> str:
    """Describe a key that does not exist."""
    key, full_key, node = str(error.key), str(error.full_key or error.key), error.parent_node
    if "/" in full_key:
        group = full_key.partition("=")[0]
        return f"there is no group '{group}'{did_you_mean(group, options(folders))}"
    path = full_key.removesuffix(key)
    valid = [f"{path}{name}" for name in node if name != "hydra"] if hasattr(node, "keys") else []
    if not valid:
        above = path.rstrip(".")
        takes_names = above.endswith(("_args", ".parts"))  # null by default, so OmegaConf knows none of their keys
        hint = f"; write '{above}={{{key}:VALUE}}'" if takes_names else ""
        return f"there is no key '{full_key}': '{above}' is a single value{hint}"
    known = [*hints.leaves(node._get_root()), "hydra.run.dir"]
    return f"there is no key '{full_key}'{hints.for_key(full_key, valid, known, folders)}"


def _composition(text: str, verb: str, folders: Sequence[Path]) -> str:
    if text.startswith("Ambiguous value for argument"):
        word = text.split("'")[1]
        key, _, values = word.partition("=")
        one_of = key.partition("@")[0] in options(folders) and key.rpartition("/")[2] not in MANY
        hint = "" if one_of else f", or write '{key}=[{values}]' for a list"
        return f"'{word}' gives several values: add -m for one job each{hint}"
    if "No match in the defaults list" in text:
        group = text.split("'")[1]
        chosen = [name for name in defaults(verb, folders) if not name.startswith("override")]
        parent = group.rpartition("/")[0]
        place = f"the chosen {parent} has no part" if parent else f"'vaebench {verb}' has no group"
        return f"{place} '{group}'" + ("" if parent else did_you_mean(group, chosen))
    if "looks like a config group override" in text:
        group = text.split("'")[1]
        return f"there is no group '{group}'{did_you_mean(group, options(folders))}"
    if text.startswith("Could not delete from config"):
        key = text.split("'")[1]
        return f"there is no '{key}' to remove{did_you_mean(key, keys(verb, folders))}"
    if text.startswith("Could not append to config"):
        key = text.split("'")[1]
        return f"'{key}' is there already; write it without '+'"
    return text.partition(" To append to your")[0]
