"""The text in the cells of every table, whatever its format."""

from __future__ import annotations

from vaebench.report import plain
from vaebench.report.grouping import Column, Group, Section, column_label, value_label
from vaebench.report.numbers import short, with_error

MISSING = "-"
MAX_TEXT = 80


def clean(text: object, most: int = MAX_TEXT) -> str:
    """Text for one line: control characters (a terminal would obey them) replaced, the middle of long text left out."""
    return plain.text(text, most)


def setting(group: Group, key: str) -> str:
    """One setting of a configuration."""
    return clean(value_label(group.config[key])) if key in group.config else MISSING


def summary(group: Group, column: Column, section: Section) -> str:
    """Mean and spread over seeds; for one seed its value alone, with the digits that its error allows."""
    found = group.summaries.get(column)
    if found is None:
        metric = section.values[column].metric
        return "n/a" if any(metric in record.skipped for record in group.counted) else MISSING
    if found.spread is not None:
        return with_error(found.mean, found.spread)
    return with_error(found.mean, found.error).partition(" ±")[0] if found.error is not None else short(found.mean)


def heading(column: Column, section: Section) -> str:
    """The column's name, with an arrow towards the better values."""
    arrow = {"higher": " ↑", "lower": " ↓"}.get(section.values[column].better or "", "")
    return clean(column_label(column, section.columns)) + arrow


def behind(group: Group) -> str:
    """Its distance from the first configuration, with the standard error of the distance."""
    found = group.behind
    return "" if found is None or found.error is None else with_error(found.value, found.error)


def rank(group: Group) -> str:
    """Its rank, or nothing where there is no number to rank."""
    return "" if group.rank is None else str(group.rank)


def seeds(group: Group) -> str:
    """How many seeds the means are made of."""
    return str(len(group.counted))
