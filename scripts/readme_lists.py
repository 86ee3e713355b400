"""Write the README's lists of options from conf/ and the docstrings, as `vaebench list` shows them.

python scripts/readme_lists.py             after an option was added or described anew; a test compares
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from vaebench.commands.list import Entry, entries
from vaebench.factory.configurations import conf_dir
from vaebench.factory.groups import TABLE

README = Path(__file__).parents[1] / "README.md"
LIST = re.compile(r"(<!-- list: (\w+) -->\n).*?(<!-- end of list -->)", re.DOTALL)


def row(entry: Entry) -> str:
    """Return one option as a row: its name, what it is, and where it comes from."""
    line = re.split(r",? \(?(?:https?://|arXiv \d)", entry.line)[0].strip().rstrip(".:")
    address = re.search(r"https?://(?:[^\s()]|\([^\s()]*\))+", entry.paper)
    return f"| `{entry.name}` | {line.replace('|', chr(92) + '|')} | {f'[paper]({address[0]})' if address else ''} |"


def table(title: str) -> str:
    """Return the options of a group as a table."""
    group = next(group for group in TABLE if group.title == title)
    rows = [row(entry) for entry in entries(group.name, [conf_dir()])]
    return "\n".join([f"| `{group.name}=` | | |", "|---|---|---|", *rows]) + "\n"


def current(readme: str) -> str:
    """Return the README with its lists as they are now."""
    return LIST.sub(lambda found: f"{found[1]}\n{table(found[2])}\n{found[3]}", readme)


def listed(readme: str) -> set[str]:
    """Return the titles of the groups that the README lists."""
    return {found[2] for found in LIST.finditer(readme)}


if __name__ == "__main__":
    README.write_text(current(README.read_text()))
    sys.exit(0)
