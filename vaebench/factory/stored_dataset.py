"""The data of a run that exists: where they lie now, whether they are those that it was trained on, what it keeps."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vaebench.factory.objects import with_absolute_paths
from vaebench.factory.signatures import parameters
from vaebench.factory.targets import ConfigError
from vaebench.runs.run import Run, read_json

PLACES = ("path", "root")  # keys that locate a data set without defining it
MOST_NUMBERS = 2**31  # per example
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredData:
    """The record of a run's data set: enough to rebuild the model without the data.

    Attributes:
        name: As in `dataset=<name>`.
        shape: Shape of one example.
        num_classes: How many classes the labels count, or None.
    """

    name: str
    shape: tuple[int, ...]
    num_classes: int | None

    @property
    def likelihood(self) -> Any:
        """Only the data themselves know which likelihood suits them; a stored configuration names the model's."""
        raise ConfigError("model.likelihood: 'auto' needs the data; a stored configuration names the likelihood itself")

    def likelihood_config(self) -> dict[str, Any]:
        """See `likelihood`."""
        return dict(self.likelihood)


def stored_data(run: Run) -> StoredData | None:
    """Return what a run kept of its data set, or None where it kept nothing that can be used."""
    record = _record(run)
    shape, num_classes = record.get("shape"), record.get("num_classes")
    if not isinstance(shape, list) or not 1 <= len(shape) <= 4 or not all(_is_count(size) for size in shape):
        return None
    numbers = 1
    for size in shape:
        numbers *= size
    if numbers > MOST_NUMBERS or not (num_classes is None or _is_count(num_classes)):
        return None
    return StoredData(str(record.get("name")), tuple(shape), num_classes)


def moved(tree: Mapping[str, Any], places: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a configuration whose data set lies elsewhere.

    Args:
        tree: With a `dataset`.
        places: New values of `path` and `root`; None leaves one as it is.

    Raises:
        ConfigError: the data set has no such setting.
    """
    given = {key: value for key, value in (places or {}).items() if value is not None}
    node = dict(tree["dataset"])
    for key, value in given.items():
        if key not in PLACES:
            raise ConfigError(f"dataset.{key}: a run's data set cannot be changed, only where it lies: {_keys()}")
        if key not in node:
            known = [f"dataset.{name}" for name in PLACES if name in node]
            where = f"it has {known[0]}" if known else "it is made by the program"
            raise ConfigError(f"dataset.{key}: the run's data set has no such setting; {where}")
        node[key] = value
    if "path" in given and "root" not in given and node.get("root") is not None:
        node["root"] = None  # a new path is relative to the current folder
    return with_absolute_paths({**tree, "dataset": node}) if given else dict(tree)


def check_data(run: Run, dataset: Any, parts: Sequence[str], *, is_named: bool = False) -> None:
    """Hold the data against those that the run was trained on.

    Args:
        run: A run that was started before.
        dataset: The data as they are now.
        parts: The splits that are about to be used: others may have changed, which is told.
        is_named: Whether the user has said where the data lie, and so asked for these.

    Raises:
        ConfigError: they are others, and the user did not ask for these.
    """
    before, now = _record(run), dataset.describe()
    differing = [part for part in now["splits"] if _differs(before, now, part)]
    used = [part for part in differing if part in parts]
    if not differing:
        return
    listed = ", ".join(
        f"{part}: {before['splits'][part].get('num_examples')} examples then, {now['splits'][part]['num_examples']} now"
        for part in used or differing
    )
    sentence = (
        f"the data are not those that '{run.path}' was trained on ({listed}; their contents differ), so that examples "
        "of its training may stand among those held out"
    )
    if used and not is_named:
        key = next((key for key in PLACES if key in parameters(type(dataset))), "root")
        raise ConfigError(
            f"dataset: {sentence}; put the old data back, or name where they lie with dataset.{key}= (naming the "
            "present ones uses them all the same)"
        )
    _log.warning("dataset: %s", sentence)


def _differs(before: Mapping[str, Any], now: Mapping[str, Any], part: str) -> bool:
    splits = before.get("splits")
    old = splits.get(part) if isinstance(splits, Mapping) else None
    return isinstance(old, Mapping) and "sha256" in old and old["sha256"] != now["splits"][part]["sha256"]


def _record(run: Run) -> Mapping[str, Any]:
    """Return the record of the data in provenance.json; {} if there is none."""
    try:
        record = read_json(run.provenance).get("data")
    except (OSError, ValueError, AttributeError):
        return {}
    return record if isinstance(record, Mapping) else {}


def _keys() -> str:
    return " and ".join(f"dataset.{key}" for key in PLACES)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
