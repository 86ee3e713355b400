"""The report on a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vaebench.report import cells
from vaebench.report.grouping import Section, headline, short_labels

FEWEST_COLUMNS = 2


def print_section(section: Section, console: Console) -> None:
    """Print one data set's table, with as many columns of numbers as fit; the files hold them all."""
    table = _table(section, FEWEST_COLUMNS)
    for most in range(FEWEST_COLUMNS + 1, len(section.columns) + 1):
        wider = _table(section, most)
        if console.measure(wider).minimum > console.width or _width(wider, console) > console.width:
            break
        table = wider
    console.print(table)


def _width(table: Table, console: Console) -> int:
    return console.measure(table, options=console.options.update(width=10_000)).maximum


def _table(section: Section, most: int) -> Table:
    columns = headline(section, most)
    table = Table(box=box.SIMPLE_HEAD, title=Text(cells.clean(section.dataset)), title_justify="left")
    table.add_column("rank", justify="right")
    for label in short_labels(section.settings):
        table.add_column(Text(cells.clean(label, 30)))
    table.add_column("seeds", justify="right")
    for column in columns:
        table.add_column(Text(cells.heading(column, section)), justify="right", no_wrap=True)
    has_state = any(group.state for group in section.groups)
    if has_state:
        table.add_column("")
    for group in section.groups:
        row = [cells.rank(group), *(cells.setting(group, key) for key in section.settings), cells.seeds(group)]
        row += [cells.summary(group, column, section) for column in columns]
        row += [group.state] * has_state
        table.add_row(*map(Text, row), style="bold" if group.rank == 1 and len(section.groups) > 1 else None)
    return table
