"""A benchmark as steps: train, sample with each sampler that serves the model, evaluate, report."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vaebench.messages import check_range, did_you_mean
from vaebench.sweeps.record import VERBS
from vaebench.sweeps.step import Step

OWN = ("dataset", "seed", "hardware")  # keys of several verbs, set for training; later steps follow it
COUNTS = ("num_samples", "batch_size")
CHOICES = {"checkpoint": ("best", "last"), "split": ("train", "validation", "test")}
ALONE = {"hardware=ddp": "hardware=auto"}  # only training runs on several processes


@dataclass(frozen=True)
class Variant:
    """A sampler with its settings.

    Attributes:
        words: What `vaebench sample` is told.
        name: Of its folder in a run.
        reasons: For each training, why it does not serve the model, or None.
    """

    words: tuple[str, ...]
    name: str
    reasons: tuple[str | None, ...]


@dataclass(frozen=True)
class Evaluation:
    """How runs are evaluated.

    Attributes:
        words: What `vaebench evaluate` is told, but for the choice of metrics.
        metrics: Their names.
        judges: Those that judge samples, and so are computed for each sampler.
    """

    words: tuple[str, ...]
    metrics: tuple[str, ...]
    judges: tuple[str, ...]


def verbs_of(word: str, keys: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """Return the verbs that a word of a benchmark goes to.

    Args:
        word: An override.
        keys: The keys at the root of each verb's configuration.
    """
    top = re.split(r"[=./@:]", word.lstrip("+~"), maxsplit=1)[0]
    if top in OWN:
        return ("train",)
    return tuple(verb for verb in VERBS if top in keys[verb]) or ("train",)


def steps(
    trainings: Sequence[Sequence[str]], variants: Sequence[Variant], evaluation: Evaluation, report: Sequence[str]
) -> list[Step]:
    """Return all steps of a benchmark, each after those that it needs.

    Args:
        trainings: The overrides of each.
        variants: The samplers.
        evaluation: How runs are evaluated.
        report: What `vaebench report` is told.

    Raises:
        ValueError: two variants would write to the same folder.
    """
    _refuse_equal_names(variants)
    found = [Step(tuple(words)) for words in trainings]
    for number, words in enumerate(trainings):
        taken = tuple(word for word in words if word.startswith("seed=")) + _hardware(words)
        found += [
            Step((*variant.words, *taken), "sample", (number,), (f"samples/{variant.name}/diagnostics.json",))
            for variant in variants
            if variant.reasons[number] is None
        ]
    samplings = list(enumerate(found))[len(trainings) :]
    alone = [name for name in evaluation.metrics if name not in evaluation.judges]
    if alone:
        found += [_evaluate(evaluation, alone, number, _hardware(words)) for number, words in enumerate(trainings)]
    if evaluation.judges:
        found += [
            _evaluate(evaluation, evaluation.judges, place, _hardware(step.overrides), step.results[0].split("/")[1])
            for place, step in samplings
        ]
    return [*found, Step(tuple(report), "report", tuple(range(len(found))), ("report/report.html",))]


def _evaluate(
    evaluation: Evaluation, metrics: Sequence[str], need: int, hardware: Sequence[str], samples: str | None = None
) -> Step:
    others = set(evaluation.metrics) - set(metrics)
    kept = tuple(word for word in evaluation.words if not any(f"metric.{name}." in word for name in others))
    end = "" if samples is None else f"-{samples}"
    files = tuple(f"evaluation/{name}{end}.json" for name in metrics)
    chosen = () if samples is None else (f"samples={samples}",)
    return Step((f"metric=[{','.join(metrics)}]", *kept, *chosen, *hardware), "evaluate", (need,), files)


def _refuse_equal_names(variants: Sequence[Variant]) -> None:
    seen: dict[str, Variant] = {}
    for variant in variants:
        if variant.name in seen:
            differing = sorted(set(seen[variant.name].words) ^ set(variant.words))
            raise ValueError(
                f"sampler={variant.name} is given twice ({' and '.join(differing)}): both would be written to "
                f"samples/{variant.name}; give one value"
            )
        seen[variant.name] = variant


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse values that sampling or evaluation would refuse hours later.

    Raises:
        ValueError: the first of them.
    """
    for name in COUNTS:
        check_range(name, settings[name], at_least=1, whole=True)
    check_range("num_examples", settings["num_examples"], at_least=1, whole=True, or_null=True)
    for name, choices in CHOICES.items():
        if settings[name] not in choices:
            hint = did_you_mean(str(settings[name]), choices)
            raise ValueError(f"{name} must be {' or '.join(choices)}, got '{settings[name]}'{hint}")


def _hardware(words: Sequence[str]) -> tuple[str, ...]:
    """The words about hardware of a training, for a step that one process does."""
    kept = [ALONE.get(word, word) for word in words if word.startswith("hardware")]
    return tuple(word for word in kept if not word.startswith(("hardware.num_devices=", "hardware.tasks_per_node=")))
