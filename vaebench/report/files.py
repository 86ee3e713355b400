"""The report as files for other programs: JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from typing import Any

from vaebench.report import cells
from vaebench.report.grouping import Column, Section, column_label, key_label, short_labels
from vaebench.report.plain import path_text
from vaebench.report.reading import Record

LEGEND = (
    "Mean ± standard deviation over seeds. Rank 1 is best; configurations share a rank unless t-tests tell them apart: "
    "over seeds and, for one seed, over the same examples, at a level of 5 % for all pairs of a table together (Holm). "
    "One seed says that the weights differ, not that the methods do. n/a: the metric has no meaning there."
)


def as_json(sections: Sequence[Section], problems: Sequence[Record]) -> dict[str, Any]:
    """Everything in the report, as plain values."""
    return {
        "datasets": [
            {
                "dataset": section.dataset,
                "sort_by": section.sort_by and column_label(section.sort_by, section.columns),
                "configurations": [
                    {
                        "rank": group.rank,
                        "settings": {key_label(key): group.config.get(key) for key in section.settings},
                        "state": group.state,
                        "behind_first": group.behind
                        and {
                            "difference": group.behind.value,
                            "standard_error": group.behind.error,
                            "p": group.behind.p,
                            "how": group.behind.how,
                        },
                        "values": {
                            column_label(column, section.columns): {
                                "mean": found.mean,
                                "standard_deviation": found.spread,
                                "num_seeds": found.num_seeds,
                                "unit": section.values[column].unit,
                                "better": section.values[column].better,
                            }
                            for column, found in group.summaries.items()
                        },
                        "runs": [_run(record, record in group.counted, section.columns) for record in group.records],
                        "config": group.config,
                    }
                    for group in section.groups
                ],
            }
            for section in sections
        ],
        "unreadable": [{"path": path_text(record.path), "reason": record.problem} for record in problems],
    }


def _run(record: Record, is_counted: bool, columns: Sequence[Column]) -> dict[str, Any]:
    return {
        "path": path_text(record.path),
        "seed": record.seed,
        "status": record.status,
        "reason": record.reason,
        "epoch": record.epoch,
        "step": record.step,
        "is_counted": is_counted,
        "is_evaluated": record.is_evaluated,
        "values": {
            column_label(column, columns): {"value": value.value, "standard_error": value.standard_error}
            for column, value in record.values.items()
        },
        "not_applicable": record.skipped,
        "notes": record.notes,
    }


def as_csv(sections: Sequence[Section]) -> str:
    """One line for each run: where it lies, what it was, and each number with its standard error over examples."""
    rows: list[dict[str, Any]] = []
    for section in sections:
        for group in section.groups:
            for record in group.records:
                row: dict[str, Any] = {"dataset": section.dataset}
                row |= {key_label(key): cells.setting(group, key) for key in section.settings}
                row |= {"seed": record.seed, "status": record.status, "epoch": record.epoch}
                row["run"] = path_text(record.path)
                row["counted"] = record in group.counted
                for column, value in record.values.items():
                    label = column_label(column, section.columns)
                    row |= {label: value.value, f"{label} standard_error": value.standard_error}
                rows.append(row)
    fields = list({field: None for row in rows for field in row})
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(_spreadsheet, fields))
    writer.writerows([_spreadsheet(row.get(field, "")) for field in fields] for row in rows)
    return buffer.getvalue()


def _spreadsheet(value: object) -> object:
    """Text that a spreadsheet shows and does not compute: a leading apostrophe keeps a formula from being one."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    shown = value if isinstance(value, str) else json.dumps(value)
    is_harmless = shown == cells.MISSING or re.fullmatch(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", shown, re.ASCII)
    return f"'{shown}" if shown.lstrip()[:1] in tuple("=+-@|%") and not is_harmless else shown


def as_markdown(sections: Sequence[Section], problems: Sequence[Record]) -> str:
    """The tables, for a pull request or a notebook."""
    parts = ["# Report", LEGEND]
    for section in sections:
        header = ["rank", *short_labels(section.settings), "seeds"]
        header += [cells.heading(column, section) for column in section.columns]
        lines = [header, ["---"] * len(header)]
        for group in section.groups:
            line = [cells.rank(group), *(cells.setting(group, key) for key in section.settings), cells.seeds(group)]
            lines.append([*line, *(cells.summary(group, column, section) for column in section.columns)])
            if group.state:
                lines[-1][1] += f" ({group.state})"
        table = "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)
        parts += [f"## {_escaped(section.dataset)}", table]
    if problems:
        parts += ["## Runs that cannot be read"]
        parts += [
            "\n".join(f"- {_escaped(path_text(record.path))}: {_escaped(str(record.problem))}" for record in problems)
        ]
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    """Text that Markdown takes literally, on one line. Addresses and names of people would become links: as code."""
    text = " ".join(text.split())
    if re.search(r"@|://|www\.", text):
        return "`" + text.replace("`", "'").replace("|", "\\|") + "`"
    return "".join("\\" + character if character in "\\`*[]<>|#&~!" else character for character in text)
