"""Checks of a run's records, before anything relies on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vaebench.runs.files import parse_json

MAX_COUNT = 2**53  # epochs or steps
STATUSES = ("running", "done", "failed", "interrupted")


def check_status(record: dict[str, Any], path: Path) -> None:
    """Refuse a record whose entries are not of the kinds that `Run.set_status` writes.

    Raises:
        ValueError: the first of them.
    """
    if record.get("status") not in STATUSES:
        raise ValueError(f"'{path}' is damaged: expected a status of {', '.join(STATUSES)}, got {_shown(record)}")
    for name in ("epoch", "step"):
        if not _is_count(record.get(name, 0)):
            raise ValueError(f"'{path}' is damaged: expected a whole number as {name}, got {_shown(record, name)}")
    if not isinstance(record.get("reason"), (str, type(None))):
        raise ValueError(f"'{path}' is damaged: expected a text as reason, got {_shown(record, 'reason')}")


def metrics_row(line: bytes, number: int, path: Path) -> dict[str, Any]:
    """Parse one line of metrics.jsonl.

    Raises:
        ValueError: it is no JSON object with a step, an epoch and a split.
    """
    try:
        row = parse_json(line)
    except ValueError:
        raise ValueError(f"'{path}' is damaged: line {number} is not JSON") from None
    if not (isinstance(row, dict) and isinstance(row.get("split"), str) and _is_count(row.get("step"))):
        raise ValueError(f"'{path}' is damaged: line {number} is not an object with step, epoch and split")
    if not _is_count(row.get("epoch")):
        raise ValueError(f"'{path}' is damaged: line {number} is not an object with step, epoch and split")
    return row


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_COUNT


def _shown(record: dict[str, Any], name: str = "status") -> str:
    text = ascii(record.get(name))
    return text if len(text) <= 40 else f"{text[:39]}…"
