"""Tables that training prints: the configuration before, the values after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaebench.runs.run import Run
from vaebench.trainers.callbacks.progress import as_text


def settings(tree: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return a configuration as rows: key, choice, the settings that are set; each part has a row of its own."""
    rows = []
    for key, node in tree.items():
        if isinstance(node, Mapping):
            rows += _rows(str(key), node)
        elif node not in (None, []):
            rows.append((str(key), str(node), ""))
    return rows


def _rows(key: str, node: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    parts = {name: value for name, value in node.items() if isinstance(value, Mapping) and "_target_" in value}
    own = [
        f"{name}={value}"
        for name, value in node.items()
        if name != "_target_" and name not in parts and value not in (None, {})
    ]
    name = str(node.get("_target_", "")).rpartition(".")[2]
    rows = [(key, name, ", ".join(own))] if name or own else []
    return rows + [row for part, value in parts.items() for row in _rows(f"{key}.{part}", value)]


def missing_images(run: Run, model: Any) -> list[str]:
    """Return a sentence for `samples.png` where the model itself cannot draw samples, with the samplers that can."""
    if {"prior", "likelihood"} <= model.capabilities or len(getattr(model, "shape", ())) != 3:
        return []
    if "likelihood" not in model.capabilities:
        return []
    from vaebench.commands.sample import other_samplers

    reason = model.reason_against("prior")
    return [f"there is no samples.png: {reason}; {other_samplers(model)} (vaebench sample run={run.path} sampler=…)"]


def results(run: Run, best_by: tuple[str, str] | None) -> list[tuple[str, ...]]:
    """Return a run as rows: each value in the last training epoch, the last validation and the best one."""
    rows = run.read_metrics()
    train = [row for row in rows if row["split"] == "train"]
    validation = [row for row in rows if row["split"] == "validation"]
    name, mode = best_by or ("loss", "min")
    best = [row for row in validation if best_by is not None and isinstance(row.get(name), (int, float))]
    choose = min if mode == "min" else max
    columns = [
        train[-1] if train else {},
        validation[-1] if validation else {},
        choose(best, key=lambda row: row[name]) if best else {},
    ]
    keys = dict.fromkeys(key for row in reversed(columns) for key in row if key not in ("step", "split", "epoch"))
    return [(key, *(_number(row.get(key)) for row in columns)) for key in ["epoch", *keys]]


def cautions(run: Run, model: Any) -> list[str]:
    """Return the cautions that the last training epoch calls for, by `model.cautions`."""
    train = [row for row in run.read_metrics() if row["split"] == "train"]
    last = train[-1] if train else {}
    return [
        f"{term} is {value:.3g}, above {limit:g}: {meaning}"
        for term, (limit, meaning) in model.cautions.items()
        if isinstance(value := last.get(term), (int, float)) and value > limit
    ]


def _number(value: object) -> str:
    return as_text(value) if isinstance(value, float) else "" if value is None else str(value)
