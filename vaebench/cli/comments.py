"""Comments that `--help` prints beside the values: those of the yaml files, or else the docstrings of the classes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vaebench.commands.list import docstring
from vaebench.factory.configurations import MAX_DEPTH, load

_LINE = re.compile(r"(?P<indent> *)(?P<key>\w+):(?: +(?P<value>.*?))?(?:(?:^|\s+)#\s*(?P<comment>.+))?")
NARROWEST = 16  # characters; a narrower comment is left out


def annotated(text: str, comments: Mapping[str, str], width: int) -> str:
    """Return YAML with comments behind its lines, in one column, cut to a width.

    Args:
        text: As OmegaConf writes it.
        comments: By dotted key.
        width: Characters in a line.
    """
    lines = list(_with_keys(text.splitlines()))
    beside = [len(line) for line, key, _ in lines if key in comments]
    column = min(max(beside, default=0) + 2, width // 2)
    written = []
    for line, key, _ in lines:
        comment = comments.get(key, "")
        start = max(column, len(line) + 2)
        room = width - start - len("# ")
        written.append(f"{line:<{start}}# {_cut(comment, room)}" if comment and room >= NARROWEST else line)
    return "\n".join(written) + "\n"


def gathered(verb: str, choices: Mapping[str, Any], folders: Sequence[Path]) -> dict[str, str]:
    """Return the comments of a verb's configuration by dotted key.

    Args:
        verb: Name of the primary configuration.
        choices: What was chosen in each group, as Hydra records it: `model/network@model.metric_network: mlp`.
        folders: The folders with configurations.
    """
    found = _of_file("base", "", folders) | _of_file(verb, "", folders)
    for place, chosen in choices.items():
        group, _, package = place.partition("@")
        for option in chosen if isinstance(chosen, Sequence) and not isinstance(chosen, str) else [chosen]:
            if option is not None and not group.startswith("hydra"):
                found |= _of_option(group, str(option), package or group.replace("/", "."), folders)
    return found


def _of_option(group: str, option: str, package: str, folders: Sequence[Path], depth: int = 0) -> dict[str, str]:
    name = f"{group}/{option}"
    content = load(name, folders)
    found: dict[str, str] = {}
    for entry in content.get("defaults") or [] if depth < MAX_DEPTH else []:
        if isinstance(entry, str) and entry != "_self_":
            found |= _of_option(group, entry, package, folders, depth + 1)
    place = _package(name, folders) or package
    if isinstance(content.get("_target_"), str):
        documented = _arguments(docstring(content["_target_"]))
        found |= {f"{place}.{argument}": text for argument, text in documented.items()}
    return found | _of_file(name, f"{place}.", folders)


def _of_file(name: str, prefix: str, folders: Sequence[Path]) -> dict[str, str]:
    lines = _with_keys(_lines(name, folders))
    return {f"{prefix}{key}": comment for _, key, comment in lines if key and comment}


def _package(name: str, folders: Sequence[Path]) -> str | None:
    for line in _lines(name, folders)[:1]:
        if line.startswith("# @package "):
            return line.removeprefix("# @package ").strip()
    return None


def _lines(name: str, folders: Sequence[Path]) -> list[str]:
    files = [folder / f"{name}.yaml" for folder in folders]
    return next((file.read_text(encoding="utf-8").splitlines() for file in files if file.is_file()), [])


def _with_keys(lines: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield each line of a YAML mapping with its dotted key and its comment, both "" where it has none."""
    above: list[tuple[int, str]] = []
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            yield line, "", ""
            continue
        indent = len(match["indent"])
        above = [(depth, key) for depth, key in above if depth < indent] + [(indent, match["key"])]
        yield line, ".".join(key for _, key in above), (match["comment"] or "").strip()


def _arguments(documentation: str) -> dict[str, str]:
    """The first clause about each argument in the section `Args`."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", documentation, re.MULTILINE)
    found = re.findall(r"^ {4}(\w+): ((?:.*\n?(?: {5,}.*\n?)*))", section.group(1) if section else "", re.MULTILINE)
    return {name: re.split(r"(?<=[^.])\.(?:\s|$)", " ".join(text.split()))[0] for name, text in found}


def _cut(comment: str, width: int) -> str:
    return comment if len(comment) <= width else comment[: width - 1].rstrip(" ,;:") + "…"
