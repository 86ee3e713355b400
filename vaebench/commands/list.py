"""`vaebench list`: every option with a description and its paper, read from files without Hydra or torch."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaebench.factory.configurations import folders, load, options
from vaebench.factory.groups import TABLE, by_word
from vaebench.messages import did_you_mean

USAGE = (
    f"usage: vaebench list [{' | '.join(group.title for group in TABLE)}]\n\n"
    "Without a word it shows them all. The group's own name will do: model, model/network.\n"
)


@dataclass(frozen=True)
class Entry:
    """One option of a group.

    Attributes:
        name: What a user types.
        line: What it is.
        paper: Where it comes from, or "".
    """

    name: str
    line: str
    paper: str


def main(words: Sequence[str]) -> None:
    """Print the options of the groups that are asked for.

    Args:
        words: Titles or names of groups; none for all.

    Raises:
        ValueError: a word that names no group, or a folder of configurations that does not exist.
    """
    if set(words) & {"-h", "--help"}:
        print(USAGE, end="")
        return
    known = by_word()
    for word in words:
        if word not in known:
            raise ValueError(f"there is nothing called '{word}'{did_you_mean(word, known)}")
    places = folders()
    for group in dict.fromkeys(known[word] for word in words) or TABLE:
        found = entries(group.name, places)
        if found:
            _print(group.title, group.name, found)
        elif words:
            print(f"vaebench list: there are no {group.title} yet", file=sys.stderr)


def entries(group: str, places: Sequence[Path]) -> list[Entry]:
    """Return the options of a group with descriptions and papers."""
    return [_entry(group, name, places) for name in options(places).get(group, [])]


def _entry(group: str, name: str, places: Sequence[Path]) -> Entry:
    """Describe an option by the first comment of its file, or else by the docstring of its class."""
    file = next(place / group / f"{name}.yaml" for place in places if (place / group / f"{name}.yaml").is_file())
    comment = _comment(file)
    documentation = docstring(_target(group, name, places))
    line = re.split(r"(?<=\.)\s+(?=[A-Z])", comment)[0] if comment else documentation.strip().partition("\n")[0]
    return Entry(name, line, _paper(comment) if "http" in comment else _paper(_references(documentation)))


def _comment(file: Path) -> str:
    """The first paragraph of the comment that a file begins with."""
    lines: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("# @package"):
            continue
        text = line.removeprefix("#").strip()
        if not line.startswith("#") or (lines and not text):
            break
        lines.append(text)
    return " ".join(lines).strip()


def _paper(text: str) -> str:
    """The first reference: up to its address, or to the semicolon that parts it from the next."""
    with_address = re.match(r".*?https?://[^\s;,]+", text)
    return with_address.group().rstrip(".") if with_address else text.partition(";")[0].strip()


def _target(group: str, name: str, places: Sequence[Path], depth: int = 0) -> str:
    """The `_target_` of a configuration, or of the one that it builds upon."""
    content: dict[str, Any] = load(f"{group}/{name}", places)
    nodes = [content, *(value for value in content.values() if isinstance(value, dict))]
    for node in nodes:
        if isinstance(node.get("_target_"), str):
            return str(node["_target_"])
    for parent in content.get("defaults") or []:
        if isinstance(parent, str) and parent != "_self_" and depth < 10:
            return _target(group, parent, places, depth + 1)
    return ""


def docstring(target: str) -> str:
    """Return the docstring of the class or function `package.module.Name`, found without importing any of it."""
    module, _, name = target.rpartition(".")
    places = [Path(__file__).resolve().parents[2], *map(Path, sys.path)] if module else []
    for path in (place.joinpath(*module.split(".")) for place in places):
        for file in (path.with_suffix(".py"), *sorted(path.glob("*.py"))):
            for node in _statements(file):
                if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
                    return ast.get_docstring(node) or ""
    return ""


def _statements(file: Path) -> list[ast.stmt]:
    try:
        return ast.parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError):  # a user's broken file must not hide the others
        return []


def _references(documentation: str) -> str:
    section = re.search(r"^References:\n((?:[ \t]+.*\n?)+)", documentation, re.MULTILINE)
    return " ".join(section.group(1).split()) if section else ""


def _print(title: str, group: str, found: Sequence[Entry]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:  # one option per line, for grep
        for entry in found:
            print("\t".join(text for text in (f"{group}={entry.name}", entry.line, entry.paper) if text))
        return
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column(f"{group}=", style="bold", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for entry in found:  # the paper goes below, since its address does not fit beside
        table.add_row(Text(entry.name), Text(entry.line + f"\n{entry.paper}" * bool(entry.paper)))
    console.print(table)
