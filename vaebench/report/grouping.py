"""Runs of one configuration under different seeds, side by side: means, spreads, ranks, and what differs."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vaebench.messages import did_you_mean
from vaebench.report.by_sampler import SAMPLER, apart
from vaebench.report.comparing import Difference, Measured, difference, ranks
from vaebench.report.reading import VALIDATION_LOSS, Conditions, Record, Value
from vaebench.runs.identity import identity

_MODEL, _LIKELIHOOD, _TRAINER = "model._target_", "model.likelihood._target_", "trainer._target_"

ONE_EACH = ("samplers", "kernels", "quantizers")  # packages whose files hold one option each
LIKELIHOODS = ("elbo_nats", "energy_nll_nats")  # what says most about log p(x) where there is no bound from K samples
MAX_SETTINGS = 24  # columns of settings; the rest are in the configurations below the table

Column = tuple[str, Conditions]


@dataclass(frozen=True)
class Summary:
    """A column of one configuration.

    Attributes:
        mean: Mean over seeds.
        spread: Standard deviation over seeds (n - 1 in the denominator), or None for one seed.
        num_seeds: How many.
        error: Standard error of the mean: over seeds, for one seed over the examples, or None.
    """

    mean: float
    spread: float | None
    num_seeds: int
    error: float | None


@dataclass
class Group:
    """Runs of one configuration; `counted` are those that the means are made of."""

    config: dict[str, Any]
    records: list[Record]
    counted: list[Record]
    summaries: dict[Column, Summary] = field(default_factory=dict)
    rank: int | None = None
    behind: Difference | None = None  # difference from the first configuration, in the sorted column

    @property
    def state(self) -> str:
        """Warnings about the runs, to be read before trusting the means; "" if there are none."""
        states = [] if any(record.is_done for record in self.counted) else [self.counted[0].status]
        return ", ".join(states + ["not evaluated"] * (not any(record.is_evaluated for record in self.counted)))


@dataclass
class Section:
    """The configurations of one data set, best first.

    Attributes:
        dataset: Its name.
        groups: The configurations.
        settings: Keys in which they differ, the model first.
        columns: What was measured, in order.
        values: For each column one of its values, for unit, direction and metric.
        sort_by: The column by which they are sorted, or None where there is no number at all.
        better: Which of its directions is better, or None.
    """

    dataset: str
    groups: list[Group]
    settings: list[str]
    columns: list[Column]
    values: dict[Column, Value]
    sort_by: Column | None
    better: str | None


def make_sections(
    records: Sequence[Record], sort_by: str | None = None, descending: bool | None = None
) -> list[Section]:
    """Group, summarise and sort; numbers that do not compare (other data, mass against density) share no table.

    Args:
        records: Readable runs.
        sort_by: Name of a column; None takes the tightest bound on log p(x) that there is.
        descending: Larger values first; None puts the better ones first.

    Raises:
        ValueError: no run has a column of that name.
    """
    names = {name for record in records for name, _ in record.values}
    if sort_by is not None and sort_by not in names:
        raise ValueError(f"sort_by: no run has '{sort_by}'{did_you_mean(sort_by, names)}")
    # A likelihood that suits one data set can be wrong for another, so data sets are judged separately.
    measures = {(_dataset_key(r), _key(r.config.get(_LIKELIHOOD))): r.measure for r in records if r.measure is not None}
    by_kind: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        likelihood = record.config.get(_LIKELIHOOD)
        measure = record.measure or measures.get((_dataset_key(record), _key(likelihood))) or value_label(likelihood)
        by_kind.setdefault((dataset_label(record), _dataset_key(record), measure), []).append(record)
    datasets = Counter(dataset for _, dataset, _ in by_kind)
    sections = []
    for (label, key, measure), members in sorted(by_kind.items()):
        kind = f"probability {measure}" if measure in ("mass", "density") else f"likelihood {measure}"
        title = f"{label}, {kind}" if datasets[key] > 1 else label
        own, of_samplers = apart(members)
        sections.append(_section(title, own, sort_by, descending))
        if of_samplers:
            is_theirs = any(name == sort_by for record in of_samplers for name, _ in record.values)
            choice = (sort_by, descending) if is_theirs else (None, None)
            sections.append(_section(f"{title}, samples", of_samplers, *choice))
    return sections


def _section(label: str, records: list[Record], sort_by: str | None, descending: bool | None) -> Section:
    by_key: dict[str, list[Record]] = {}
    for record in records:
        by_key.setdefault(_key(_configuration(record)), []).append(record)
    groups = [_group(members) for members in by_key.values()]
    columns = _columns(groups)
    column = _sort_column(groups, columns, sort_by)
    values = {column: value for record in records for column, value in record.values.items()}
    better = values[column].better if column is not None else None
    if column is not None:
        reverse = better == "higher" if descending is None else descending
        sign = -1.0 if reverse else 1.0
        # Groups without this number come last, sorted by the one that every run has.
        loss = (VALIDATION_LOSS, Conditions())
        groups.sort(key=lambda g: g.summaries[loss].mean if loss in g.summaries else math.inf)
        groups.sort(key=lambda g: sign * g.summaries[column].mean if column in g.summaries else math.inf)
        if better is not None:
            _rank(groups, column, better)
    settings = differing([group.config for group in groups])[:MAX_SETTINGS]
    if SAMPLER in groups[0].config:
        settings = list(dict.fromkeys([settings[0], SAMPLER, *settings[1:]]))
    return Section(label, groups, settings, columns, values, column, better)


def _group(records: list[Record]) -> Group:
    records = sorted(records, key=lambda record: (str(record.seed), record.start))
    candidates = [record for record in records if record.is_done] or records
    # A seed counts once: the evaluated run wins, then the newest.
    newest = {_key(r.seed): r for r in sorted(candidates, key=lambda r: (r.is_evaluated, r.start))}
    counted = [record for record in records if newest.get(_key(record.seed)) is record]
    group = Group(_configuration(records[0]), records, counted)
    for column in {column: None for record in counted for column in record.values}:
        found = [record.values[column] for record in counted if column in record.values]
        values = [value.value for value in found]
        spread = statistics.stdev(values) if len(values) > 1 else None
        error = found[0].standard_error if spread is None else spread / math.sqrt(len(values))
        group.summaries[column] = Summary(statistics.fmean(values), spread, len(values), error)
    return group


def _rank(groups: list[Group], column: Column, better: str) -> None:
    """Rank is one more than the number of configurations that are clearly better."""
    ranked = [group for group in groups if column in group.summaries]
    measured = [_measured(group, column) for group in ranked]
    for group, own, rank in zip(ranked, measured, ranks(measured, better), strict=True):
        group.rank = rank
        group.behind = difference(own, measured[0]) if group is not ranked[0] else None


def _measured(group: Group, column: Column) -> Measured:
    summary = group.summaries[column]
    found = [record.values[column] for record in group.counted if column in record.values]
    files = [value.examples for value in found]
    kept = [file.load() for file in files if file is not None]
    arrays = [values for values in kept if values is not None]
    is_complete = len(arrays) == len(found) > 0 and len({values.shape for values in arrays}) == 1
    data = {file.data for file in files if file is not None}
    return Measured(
        summary.mean,
        summary.num_seeds,
        summary.spread,
        summary.error,
        min((value.n for value in found if value.n is not None), default=None),
        np.mean(arrays, axis=0) if is_complete and len(data) == 1 else None,
        next(iter(data), None),
    )


def _columns(groups: list[Group]) -> list[Column]:
    """Every column once: bounds first, the validation loss last, the others as their metrics wrote them.

    Of columns that share a name, the one under the conditions of most configurations stands first.
    """
    found = Counter(column for group in groups for column in group.summaries)
    first = {name: position for position, (name, _) in reversed(list(enumerate(found)))}
    return sorted(found, key=lambda c: (c[0] == VALIDATION_LOSS, not c[0].endswith("_nats"), first[c[0]], -found[c]))


def _sort_column(groups: list[Group], columns: list[Column], name: str | None) -> Column | None:
    """The column of that name; else, of the columns that most configurations have, the tightest bound on log p(x).

    Without a bound or an estimate of it, the validation loss; without that (chains, samples), the first number of which
    one direction is better.
    """
    if name is not None:
        return next((column for column in columns if column[0] == name), None)
    bounds = sorted(filter(_is_bound, columns), key=_num_samples, reverse=True)
    candidates = [*bounds, *(column for likelihood in LIKELIHOODS for column in columns if column[0] == likelihood)]
    candidates = candidates or [column for column in columns if column[0] == VALIDATION_LOSS]
    values = {column: value for group in groups for record in group.counted for column, value in record.values.items()}
    candidates = candidates or [column for column in columns if column in values and values[column].better]
    if not candidates:
        return None
    return max(candidates, key=lambda column: sum(column in group.summaries for group in groups))  # the first of equals


def _is_bound(column: Column) -> bool:
    return column[0].startswith("importance_bound_")


def _num_samples(column: Column) -> int:
    return int("".join(filter(str.isdigit, column[0])) or 0)


def headline(section: Section, most: int) -> list[Column]:
    """The columns that a narrow table shows: what it is sorted by, then all but the ladder of importance samples."""
    bounds = [column for column in section.columns if _is_bound(column)]
    first = [section.sort_by] if section.sort_by is not None else []
    tightest = [max(bounds, key=_num_samples)] if bounds and not any(map(_is_bound, first)) else []
    others = [
        column for column in section.columns if not column[0].startswith(("importance_bound_", "importance_ess_"))
    ]
    return list(dict.fromkeys([*first, *tightest, *others]))[:most]


def differing(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Keys in which the configurations differ, the model first.

    Settings that only some models have are shown where they differ between configurations of one model. A key's absence
    says nothing, unless without it two configurations look alike.
    """
    keys = list({key: None for config in configs for key in config})
    by_model: dict[str, list[dict[str, Any]]] = {}
    for config in configs:
        by_model.setdefault(_key(config.get(_MODEL)), []).append(config)

    def differs(key: str, among: Sequence[dict[str, Any]]) -> bool:
        return len({_key(config[key]) for config in among if key in config}) > 1

    shown = [
        key
        for key in keys
        if any(differs(key, among) for among in by_model.values())
        or (all(key in config for config in configs) and differs(key, configs))
    ]
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for config in configs:
        row = (_key(config.get(_MODEL)), *(_key(config.get(key)) for key in shown))
        alike.setdefault(row, []).append(config)
    for among in alike.values():
        shown += [key for key in keys if len({_key(config[key]) if key in config else None for config in among}) > 1]
    if not any(differs(_TRAINER, among) for among in by_model.values()):
        shown = [key for key in shown if key != _TRAINER]  # the model implies it
    order = [_MODEL, "model", "dataset", "trainer"]
    shown = list(dict.fromkeys([_MODEL, *shown]))
    return sorted(shown, key=lambda key: next((i for i, name in enumerate(order) if key.startswith(name)), len(order)))


def short_labels(keys: Sequence[str]) -> list[str]:
    """The last parts of dotted keys, as headings; the whole key where two would read alike."""
    ends = [key_label(key).rpartition(".")[2] for key in keys]
    return [end if ends.count(end) == 1 else key_label(key) for key, end in zip(keys, ends, strict=True)]


def column_label(column: Column, columns: Sequence[Column]) -> str:
    """The column's name, and those conditions in which it differs from others of its name."""
    name, protocol = column
    others = [set(other.items) for other_name, other in columns if other_name == name]
    shared = set.intersection(*others) if others else set()
    own = [f"{key} {value}" for key, value in protocol.items if (key, value) not in shared]
    return f"{name} ({', '.join(own)})" if own else name


def key_label(key: str) -> str:
    """A dotted key as a heading: `model._target_` is the model."""
    return key.removesuffix("._target_")


def value_label(value: object) -> str:
    """A setting as text: a target by its option's name, where a file holds one; otherwise by its class.

    An option has the name of its file: `langevin` is `vaebench.samplers.langevin.LangevinDynamics`.
    """
    if isinstance(value, str) and value.count(".") >= 2 and value.startswith("vaebench."):
        package, module, name = value.split(".")[-3:]
        begins_so = name.lower().startswith(module.replace("_", ""))
        return module if begins_so or package in ONE_EACH else name
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def dataset_label(record: Record) -> str:
    """The data set's name and settings that are not the usual; of chains on an energy, the target's name."""
    if "dataset._target_" not in record.config and "target._target_" in record.config:
        return f"target={str(record.config['target._target_']).split('.')[-2:][0]}"
    name = value_label(record.config.get("dataset._target_", "unknown"))
    binarization = record.config.get("dataset.binarization", "none")
    path = record.config.get("dataset.path")
    extras = [str(binarization)] * (binarization not in ("none", None)) + [str(path)] * (path is not None)
    return f"{name} ({', '.join(extras)})" if extras else name


def _dataset_key(record: Record) -> str:
    group = "dataset." if "dataset._target_" in record.config else "target."  # a run of chains on an energy
    parts = {key: value for key, value in _configuration(record).items() if key.startswith(group)}
    # The number of training examples does not separate groups: the test set is the same.
    parts.pop("dataset.num_examples", None)
    return _key(parts)


def _configuration(record: Record) -> dict[str, Any]:
    return identity(record.config, seed=False, length=True)


def _key(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)
