"""The report as one HTML page that needs nothing beside itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from vaebench.report import cells, curves
from vaebench.report import images as pictures
from vaebench.report.by_sampler import SAMPLER
from vaebench.report.files import LEGEND
from vaebench.report.grouping import Group, Section, column_label, headline, key_label, short_labels, value_label
from vaebench.report.numbers import with_error
from vaebench.report.plain import path_text
from vaebench.report.reading import SPLITS, Record
from vaebench.runs.run import now


def render(
    sections: Sequence[Section], problems: Sequence[Record], version: str = "", searches: Sequence[Path] = ()
) -> str:
    """Fill the template; all text in it is escaped.

    Args:
        sections: What to compare.
        problems: Runs that cannot be read.
        version: Of the program.
        searches: Pictures of the searches that found these runs.
    """
    shown = [(path_text(path), pictures.data_uri(path)) for path in searches]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    groups = [group for section in sections for group in section.groups]
    return environment.get_template("page.html.jinja").render(
        sections=[_section(section) for section in sections],
        searches=[picture for picture in shown if picture[-1] is not None],
        problems=[(path_text(record.path), record.problem) for record in problems],
        num_runs=len({record.path for group in groups for record in group.records}),
        num_groups=sum(SAMPLER not in group.config for group in groups),
        legend=LEGEND,
        version=version,
        time=now()[:16].replace("T", " "),
        num_colors=curves.NUM_COLORS,
    )


def _section(section: Section) -> dict[str, Any]:
    columns = headline(section, len(section.columns))
    panels = {
        f"{split} loss (nats)": [[record.curves.get(split, []) for record in group.records] for group in section.groups]
        for split in SPLITS
    }
    svg = curves.learning_curves(panels)
    place = _scale(section)
    return {
        "name": section.dataset,
        "settings": [_breakable(cells.clean(label)) for label in short_labels(section.settings)],
        "columns": [
            {
                "heading": _breakable(cells.heading(column, section)),
                "unit": cells.clean(section.values[column].unit),
                "is_sorted": column == section.sort_by,
            }
            for column in columns
        ],
        "sort_by": section.sort_by and _breakable(column_label(section.sort_by, section.columns)),
        "curves": Markup(svg),  # safe: drawn here, without any text from the runs
        "groups": [_group(group, number, section, place) for number, group in enumerate(section.groups)],
    }


def _group(group: Group, number: int, section: Section, place: partial[float] | None) -> dict[str, Any]:
    column = section.sort_by
    seen = [record.values[column].value for record in group.counted if column in record.values] if column else []
    summaries = [
        (*cells.summary(group, column, section).partition(" ± ")[::2],)
        for column in headline(section, len(section.columns))
    ]
    shown = {name: path for record in reversed(group.counted) for name, path in record.images.items()}
    images = [(name, path_text(path), pictures.data_uri(path)) for name, path in shown.items()]
    return {
        "color": min(number, curves.NUM_COLORS),
        "rank": cells.rank(group),
        "is_best": group.rank == 1 and len(section.groups) > 1,
        "settings": [cells.setting(group, key) for key in section.settings],
        "name": _name(group, section.settings),
        "seeds": cells.seeds(group),
        "state": group.state,
        "summaries": summaries,
        "dots": [place(value) for value in seen] if place else [],
        "mean": place(group.summaries[column].mean) if place and column in group.summaries else None,  # type: ignore[index]
        "images": [image for image in images if image[-1] is not None],
        "runs": [_run(record, group, section) for record in group.records],
        "config": [(key_label(key), cells.clean(value_label(value), 200)) for key, value in group.config.items()],
    }


def _breakable(text: str) -> Markup:
    """Text whose long names may go on in the next line, so that a table with many columns fits a page."""
    return escape(text).replace("_", Markup("_<wbr>")).replace(".", Markup(".<wbr>"))


def _name(group: Group, settings: Sequence[str]) -> str:
    """The model, then what sets it apart."""
    labels = dict(zip(settings, short_labels(settings), strict=True))
    apart = [f"{cells.clean(labels[key])} {cells.setting(group, key)}" for key in settings[1:] if key in group.config]
    return ", ".join([cells.setting(group, settings[0]), *apart])


def _run(record: Record, group: Group, section: Section) -> dict[str, Any]:
    values = []
    for column in section.columns:
        found = record.values.get(column)
        label, metric = column_label(column, section.columns), section.values[column].metric
        if found is not None:
            unit = cells.clean(found.unit)
            values.append((label, with_error(found.value, found.standard_error), unit))
        elif metric in record.skipped:
            values.append((label, "n/a", cells.clean(record.skipped[metric], 300)))
    missing = sorted(set(record.skipped) - {section.values[column].metric for column in section.columns})
    values += [(name, "n/a", cells.clean(record.skipped[name], 300)) for name in missing]
    return {
        "path": path_text(record.path),
        "seed": "-" if record.seed is None else cells.clean(record.seed),
        "status": record.status,
        "epoch": "-" if record.epoch is None else str(record.epoch),
        "duration": _duration(record.provenance),
        "is_counted": record in group.counted,
        "is_evaluated": record.is_evaluated,
        "notes": [*([record.reason] if record.reason else []), *record.notes],
        "command": cells.clean(record.provenance.get("command", ""), 1_000),
        "values": values,
    }


def _scale(section: Section) -> partial[float] | None:
    """Place a value of the sorted column between 0 and 100, or None where there is nothing to compare."""
    column = section.sort_by
    values = [r.values[column].value for g in section.groups for r in g.counted if column in r.values] if column else []
    if len(set(values)) < 2:
        return None
    return partial(_position, min(values), max(values))


def _position(low: float, high: float, value: float) -> float:
    return round(100 * (value - low) / (high - low), 2)


def _duration(provenance: dict[str, Any]) -> str:
    try:
        start, end = (datetime.fromisoformat(str(provenance[key])) for key in ("start", "end"))
        seconds = int((end - start).total_seconds())
    except (KeyError, ValueError, TypeError):
        return "-"
    if provenance.get("restarts"):
        return "resumed"
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if seconds >= 0 else "-"
