"""The contents of a run directory. Its files are a stranger's text: read as plain values, never trusted."""

from __future__ import annotations

import glob
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from vaebench.messages import counted
from vaebench.report.comparing import ExampleFile
from vaebench.report.plain import count, number, plain_value, text
from vaebench.runs.regular import TEMPORARY, read_bytes
from vaebench.runs.run import Run, read_json

MAX_DEPTH = 50  # levels of nesting; a deeper configuration is an attack on the parser
MARKS = ("config.yaml", "status.json", "provenance.json", "metrics.jsonl", "checkpoints")
MAX_CONFIG = 2**20  # bytes
MAX_POINTS = 2_000  # per curve
MAX_VALUES = MAX_FILES = 100
SPLITS = ("train", "validation")
VALIDATION_LOSS = "validation_loss"
PRIOR = "prior"  # where samples come from unless a sampler is named


@dataclass(frozen=True)
class Conditions:
    """The conditions under which a number was found; numbers under different ones do not compare.

    Attributes:
        items: Pairs of a name and a value as text, sorted.
    """

    items: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Value:
    """A number of one run.

    Attributes:
        value: The number.
        standard_error: Over examples, or None.
        unit: Of both.
        better: "higher", "lower" or None.
        metric: Name of the metric that gave it; "" for the validation loss.
        n: How many examples it is made of, where the evaluation says.
        examples: Where its values of single examples lie, if they were kept.
        samples: What drew the samples that it judges: "prior", or a sampler, with its temperature where that is not 1;
            None for a number that is not about samples.
    """

    value: float
    standard_error: float | None
    unit: str
    better: str | None
    metric: str = ""
    n: int | None = None
    examples: ExampleFile | None = None
    samples: str | None = None


@dataclass
class Record:
    """One run as the report sees it.

    `problem` says why nothing could be read; the other fields are then empty. `measure` says what log p(x) is the
    logarithm of, a "mass" or a "density": the two do not compare. It is known once the run was evaluated,
    unless the likelihood is not one of the data: black and white for grey values.
    """

    path: Path
    problem: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    status: str = "unknown"
    epoch: int | None = None
    step: int | None = None
    reason: str | None = None
    start: str = ""
    measure: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    values: dict[tuple[str, Conditions], Value] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    images: dict[str, Path] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Whether training came to its end."""
        return self.status == "done"

    @property
    def is_evaluated(self) -> bool:
        """Whether `vaebench evaluate` left a number."""
        return any(name != VALIDATION_LOSS for name, _ in self.values)

    @property
    def seed(self) -> object:
        """The run's seed."""
        return self.config.get("seed")


def find_runs(places: Sequence[str]) -> list[Path]:
    """Expand run directories, folders of them and globs into run directories, each once.

    Raises:
        ValueError: one of the places leads to no run; the sentence names it.
    """
    found: dict[Path, Path] = {}
    for place in places:
        matches = [place] if Path(place).exists() else sorted(glob.glob(place, recursive=True))
        runs = [run for match in matches for run in _walk(match)]
        if not runs:
            near = _near(place)
            raise ValueError(f"run: found no run in '{place}'; {near or 'train one: vaebench train'}")
        found.update((run.resolve(), run) for run in runs)
    return list(found.values())


def _near(place: str) -> str:
    """The end of the sentence in which `Run.open` names a run near a path that is none, or ""."""
    try:
        Run.open(place)
    except ValueError as error:
        _, found, hint = str(error).partition("did you mean")
        return found + hint
    return ""


def _walk(place: str) -> Iterator[Path]:
    for folder, subfolders, files in os.walk(place):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        if sum(mark in files or mark in subfolders for mark in MARKS) >= 2:
            subfolders.clear()
            yield Path(folder)


def read_run(path: Path) -> Record:
    """Read one run; damage becomes a `problem` or a note, never an error."""
    try:
        run = Run.open(path)
        config = flatten(_load_yaml(run.config))
        status, provenance = run.read_status(), dict(read_json(run.provenance))
    except (ValueError, OSError, RecursionError) as error:
        return Record(path, problem=text(error).removeprefix("run: "))
    record = Record(
        path,
        config=config,
        status=str(status.get("status", "unknown")),
        epoch=count(status.get("epoch")),
        step=count(status.get("step")),
        reason=text(status["reason"]) if status.get("reason") else None,
        start=text(run.start),
        provenance=plain_value(provenance),
    )
    _read_curves(run, record)
    earlier: dict[Any, list[str]] = {}
    for file in _first(run.path.glob("evaluation/*.json"), record):
        if file.name.startswith(TEMPORARY):
            continue
        try:
            step = _read_evaluation(file, record)
            if None not in (step, record.step) and step != record.step:
                earlier.setdefault(step, []).append(text(file.stem))
        except (ValueError, TypeError, LookupError, AttributeError, OSError) as error:
            record.notes.append(f"evaluation/{text(file.name)} cannot be read: {text(error)}")
    for step, names in earlier.items():
        of = f"{', '.join(names)}: of step {text(step)}"
        record.notes.append(f"{of}, the run is at step {record.step}: evaluate it again")
    loss = (VALIDATION_LOSS, Conditions())
    if loss in record.values and not _loss_compares(record):
        del record.values[loss]
        if not record.values:
            record.notes.append(
                "its loss compares no models, for the best and the worst can have the same: evaluate it to rank it"
            )
    pictures = {"samples": run.images / "samples.png", "reconstructions": run.images / "reconstructions.png"}
    grids = [file for file in run.path.glob("samples/*/grid.png") if not file.parent.name.startswith(".")]
    pictures |= {f"sampler {text(file.parent.name)}": file for file in _first(grids, record)}
    record.images = {name: file for name, file in pictures.items() if file.is_file()}
    return record


def _first(files: Iterable[Path], record: Record) -> list[Path]:
    found = sorted(files)
    if len(found) > MAX_FILES:
        record.notes.append(f"of {len(found)} files in '{text(found[0].parent.name)}' only {MAX_FILES} are shown")
    return found[:MAX_FILES]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give every value of nested mappings its dotted key; lists stay whole, an empty mapping leaves nothing."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{text(name)}"
        # YAML has dates and bytes; JSON does not.
        flat.update(flatten(value, f"{key}.") if isinstance(value, Mapping) else {key: plain_value(value)})
    return flat


def _load_yaml(path: Path) -> dict[str, Any]:
    """Plain values only: an alias could unfold into more than memory holds, deep nesting could exhaust the stack."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = read_bytes(path, MAX_CONFIG).decode("utf-8")
        depth = 0
        for event in yaml.parse(content, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > MAX_DEPTH:
                raise ValueError("expected plain values, got a YAML alias or very deep nesting")
        tree = yaml.load(content, Loader=loader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
        problem = getattr(error, "problem", None) or error
        raise ValueError(f"config.yaml is damaged: {problem}") from None
    if not isinstance(tree, dict):
        raise ValueError("config.yaml is damaged: expected a mapping at its top")
    return tree


def _read_curves(run: Run, record: Record) -> None:
    best = math.inf
    curves: dict[str, list[tuple[float, float]]] = {split: [] for split in SPLITS}
    kept = dict.fromkeys(SPLITS, 1)  # split -> keep one row in this many
    seen = dict.fromkeys(SPLITS, 0)
    try:
        for row in run.metrics_rows():
            split, epoch, loss = row["split"], number(row["epoch"]), number(row.get("loss"))
            if split not in curves or epoch is None or loss is None:
                continue
            best = min(best, loss) if split == "validation" else best
            if seen[split] % kept[split] == 0:
                curves[split].append((epoch, loss))
            seen[split] += 1
            if len(curves[split]) == MAX_POINTS:
                curves[split], kept[split] = curves[split][::2], 2 * kept[split]
    except ValueError as error:  # show what precedes the damage
        record.notes.append(text(error))
    record.curves = {split: line for split, line in curves.items() if line}
    if math.isfinite(best):
        record.values[VALIDATION_LOSS, Conditions()] = Value(best, None, "nats", "lower")


def _loss_compares(record: Record) -> bool:
    """Whether a lower loss is better; runs from before this was recorded are taken to be of that kind."""
    model = record.provenance.get("model")
    return not isinstance(model, dict) or model.get("best_criterion", True) is not None


def _read_evaluation(file: Path, record: Record) -> Any:
    """Read one metric's values into the record; return the step that the run had, or None."""
    content = plain_value(read_json(file))
    for problem in ("skipped", "failed"):
        if problem in content:
            record.skipped[text(file.stem)] = f"{problem}: {content[problem]}"
    settings = content.get("settings", {})
    checkpoint = settings.get("checkpoint", {})
    conditions = {"split": settings.get("split"), "checkpoint": checkpoint.get("name")}
    if settings.get("limit") is not None:
        conditions["first"] = counted(settings["limit"], "example")
    own, samples = settings.get("metric", {}), _samples(settings)
    if samples not in (None, PRIOR):
        conditions["samples"] = samples
    if samples is not None and own.get("num_samples") is not None:
        conditions["num_samples"] = own["num_samples"]  # distances of unequally many do not compare
    conditions |= {key: own[key] for key in own if key not in ("_target_", "num_samples", "chunk_size")}
    protocol = Conditions(tuple(sorted((str(key), str(value)) for key, value in conditions.items())))
    entries = content.get("values", {})
    if len(entries) > MAX_VALUES:
        raise ValueError(f"it holds {len(entries)} values, more than {MAX_VALUES}")
    for name, entry in entries.items():
        value = number(entry["value"])
        if value is None:
            record.notes.append(f"evaluation/{text(file.name)}: {name} is not finite")
            continue
        better = entry.get("better") if entry.get("better") in ("higher", "lower") else None
        error = number(entry.get("standard_error"))
        if error is not None and error < 0:
            record.notes.append(f"evaluation/{text(file.name)}: {name} has a negative standard error")
            error = None
        record.values[str(name), protocol] = Value(
            value,
            error,
            str(entry.get("unit", "")),
            better,
            text(file.stem),
            count(entry.get("n")) or None,
            _examples(file, content, str(name)),
            samples,
        )
    if settings.get("measure") in ("mass", "density"):
        record.measure = settings["measure"]
    return checkpoint.get("run_step")


def _samples(settings: Mapping[str, Any]) -> str | None:
    """What drew the samples: as in `Value`."""
    samples, temperature = settings.get("samples"), settings.get("temperature")
    if samples is None:
        return None
    is_usual = temperature is None or (isinstance(temperature, (int, float)) and temperature == 1)
    return text(samples) if is_usual else f"{text(samples)} at temperature {text(temperature)}"


def _examples(file: Path, content: Mapping[str, Any], name: str) -> ExampleFile | None:
    """Where the values of single examples lie: beside the record, under its name, whatever it says."""
    kept = content.get("per_example")
    sha256 = kept.get("sha256") if isinstance(kept, Mapping) else None
    data = content.get("settings", {}).get("data")
    return (
        None
        if sha256 is None
        else ExampleFile(
            file.with_suffix(".safetensors"),
            str(sha256),
            name,
            None if data is None else json.dumps(data, sort_keys=True),
        )
    )
