"""Output of the commands: tables on a terminal, plain lines elsewhere and in the run's own log."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vaebench.messages import printable

_log = logging.getLogger(__name__)


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, on_stderr: bool = False) -> None:
    """Print a table, and write its lines to the run's log file if there is one.

    Args:
        title: Line above the table.
        columns: Their headings; all but the first are aligned to the right where every entry is a number.
        rows: Texts.
        on_stderr: Whether it is progress rather than a result.
    """
    title, rows = printable(title), [[printable(text) for text in row] for row in rows]
    lines = [title, *_aligned([columns, *rows])]
    to_log_file("\n".join(lines))
    console = Console(stderr=on_stderr)
    if not console.is_terminal:
        console.file.write("\n".join(lines) + "\n")
        console.file.flush()
        return
    console.print(Text(title, style="italic"), soft_wrap=True)  # a table's own title breaks paths over lines
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for heading, texts in zip(columns, zip(*rows, strict=True), strict=True):
        is_number = all(map(_is_number, texts))
        is_whole = is_number or not table.columns  # never break numbers and names
        table.add_column(heading, justify="right" if is_number else "left", overflow="fold", no_wrap=is_whole)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def say(sentence: str) -> None:
    """Print a sentence, and write it to the run's log file if there is one."""
    sentence = printable(sentence, "\n")
    to_log_file(sentence)
    Console(soft_wrap=True, highlight=False, markup=False).print(sentence)


def to_log_file(text: str, *, error: BaseException | None = None) -> None:
    """Write to the run's log file and nowhere else, with the traceback of an error."""
    level = logging.INFO if error is None else logging.ERROR
    information = None if error is None else (type(error), error, error.__traceback__)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(_log.makeRecord(_log.name, level, __file__, 0, text, (), information))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, texts)) for texts in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _is_number(text: str) -> bool:
    try:
        float(text or "0")
    except ValueError:
        return False
    return True
