"""The report on a terminal."""

from __future__ import annotations

import itertools
from collections import Counter

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vaebench.report import cells
from vaebench.report.grouping import Section, headline, short_labels

FEWEST_COLUMNS = 2
FROM_FIRST = "from the first"
NARROWEST = 24  # characters, for a column that several settings share


def print_section(section: Section, console: Console) -> None:
    """Print one data set's table, with as many columns of numbers as fit; the files hold them all.

    Where even the fewest columns are too wide, the settings share one, which names what is unlike most configurations.
    """
    is_short = not _fits(_table(section, FEWEST_COLUMNS), console)
    fewest = 1 if is_short else FEWEST_COLUMNS
    candidates = [_table(section, most, is_short) for most in range(fewest, max(fewest, len(section.columns)) + 1)]
    fitting = list(itertools.takewhile(lambda table: _fits(table, console, is_short), candidates))
    console.print(fitting[-1] if fitting else candidates[0])


def _fits(table: Table, console: Console, is_short: bool = False) -> bool:
    measure = console.measure(table, options=console.options.update(width=10_000))
    return (measure.minimum if is_short else measure.maximum) <= console.width


def _table(section: Section, most: int, is_short: bool = False) -> Table:
    columns = headline(section, most)
    labels = [cells.clean(label, 30) for label in short_labels(section.settings)]
    table = Table(box=box.SIMPLE_HEAD, title=Text(cells.clean(section.dataset)), title_justify="left")
    table.add_column("rank", justify="right", no_wrap=True)
    for label in labels[:1] if is_short else labels:
        table.add_column(Text(label), no_wrap=True)
    if is_short:
        table.add_column("unlike most", overflow="fold", min_width=NARROWEST)
    table.add_column("seeds", justify="right", no_wrap=True)
    has_distances = any(cells.behind(group) for group in section.groups)
    for column in columns:
        table.add_column(Text(cells.heading(column, section)), justify="right", no_wrap=not is_short)
        if has_distances and column == section.sort_by:
            table.add_column(Text(FROM_FIRST), justify="right", no_wrap=not is_short)
    has_state = any(group.state for group in section.groups)
    if has_state:
        table.add_column("", no_wrap=not is_short)
    usual = {key: _most_common(section, key) for key in section.settings}
    for group in section.groups:
        values = {key: cells.setting(group, key) for key in section.settings}
        if is_short:
            apart = zip(section.settings[1:], labels[1:], strict=True)
            unlike = [
                f"{label}={values[key]}" for key, label in apart if values[key] not in (usual[key], cells.MISSING)
            ]
            settings = [values[section.settings[0]], ", ".join(unlike)]
        else:
            settings = list(values.values())
        row = [cells.rank(group), *settings, cells.seeds(group)]
        for column in columns:
            row.append(cells.summary(group, column, section))
            if has_distances and column == section.sort_by:
                row.append(cells.behind(group))
        row += [group.state] * has_state
        table.add_row(*map(Text, row), style="bold" if group.rank == 1 and len(section.groups) > 1 else None)
    return table


def _most_common(section: Section, key: str) -> str:
    values = Counter(cells.setting(group, key) for group in section.groups if key in group.config)
    return values.most_common(1)[0][0] if values else cells.MISSING
