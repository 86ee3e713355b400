"""What a training shows of itself: its configuration before, its values after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaebench.runs.run import Run


def settings(tree: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """A configuration as rows: group, choice, the settings that are set."""
    rows = []
    for group, node in tree.items():
        if isinstance(node, Mapping) and "_target_" in node:
            rows.append((group, _name(node), _arguments(node)))
        elif isinstance(node, Mapping):
            rows += [(f"{group}.{name}", _name(item), _arguments(item)) for name, item in node.items()]
        elif node not in (None, []):
            rows.append((group, str(node), ""))
    return rows


def _name(node: Mapping[str, Any]) -> str:
    return str(node["_target_"]).rpartition(".")[2]


def _arguments(node: Mapping[str, Any]) -> str:
    """The settings that are set, those of parts in brackets."""
    texts = []
    for name, value in node.items():
        if isinstance(value, Mapping) and "_target_" in value:
            inner = _arguments(value)
            texts.append(f"{name}={_name(value)}" + f"({inner})" * bool(inner))
        elif value is not None and name != "_target_":
            texts.append(f"{name}={value}")
    return ", ".join(texts)


def results(run: Run, trainer: Any) -> list[tuple[str, ...]]:
    """A run as rows: each value, in the last training epoch, the last validation, and the best one."""
    rows = run.read_metrics()
    train = [row for row in rows if row["split"] == "train"]
    validation = [row for row in rows if row["split"] == "validation"]
    best = [row for row in validation if isinstance(row.get(trainer.keep_best), (int, float))]
    choose = min if trainer.keep_best_mode == "min" else max
    columns = [
        train[-1] if train else {},
        validation[-1] if validation else {},
        choose(best, key=lambda row: row[trainer.keep_best]) if best else {},
    ]
    names = dict.fromkeys(name for row in reversed(columns) for name in row if name not in ("step", "split", "epoch"))
    return [(name, *(_number(row.get(name)) for row in columns)) for name in ["epoch", *names]]


def cautions(run: Run, model: Any) -> list[str]:
    """What a user should know of the last training epoch, by `model.cautions`."""
    train = [row for row in run.read_metrics() if row["split"] == "train"]
    last = train[-1] if train else {}
    return [
        f"{term} is {value:.3g}, above {limit:g}: {meaning}"
        for term, (limit, meaning) in model.cautions.items()
        if isinstance(value := last.get(term), (int, float)) and value > limit
    ]


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)
