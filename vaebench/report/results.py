"""The numbers of one run on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vaebench.messages import counted
from vaebench.report.numbers import with_error


def print_results(path: str, settings: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> None:
    """Print each value with its standard error, n and unit; beneath, how it was estimated or why it is not there.

    Args:
        path: The run.
        settings: What the metrics share.
        records: What was written for each metric.
    """
    table = Table(box=box.SIMPLE_HEAD, title=Text(path), title_justify="left", header_style="bold")
    for column in ("metric", "value", "n", "unit"):
        table.add_column(column, justify="right" if column in ("value", "n") else "left", no_wrap=column != "unit")
    notes = [
        f"{settings['checkpoint']['name']} checkpoint, {settings['split']} split, "
        f"{counted(settings['num_examples'], 'example')}, seed {settings['seed']}, beta 1; "
        "± is one standard error over examples"
    ]
    for name, record in records.items():
        for value_name, value in record.get("values", {}).items():
            number = with_error(value["value"], value["standard_error"])
            table.add_row(value_name, number, str(value["n"]), value["unit"])
        for problem in ("skipped", "failed"):
            if problem in record:
                table.add_row(name, problem)
                notes.append(f"{name} {problem}: {record[problem]}")
        table.add_section()
        if "how" in record:
            notes.append(f"{name}: {record['how']}")
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    console.print(table)
    for note in notes:
        console.print(Text(note))
