"""The words of `vaebench benchmark` as steps: which go to which verb, and what must be known before they start."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vaebench.cli.composing import Composer
from vaebench.factory.configurations import folders, keys
from vaebench.sweeps.base import BaseSweep
from vaebench.sweeps.grid import GridSweep
from vaebench.sweeps.pipeline import Evaluation, Variant, check_settings, steps, verbs_of
from vaebench.sweeps.record import VERBS
from vaebench.sweeps.step import Step

TAKEN = ("target", "kernel")  # groups that only some samplers use
Examine = Callable[[dict[str, Any]], dict[str, Any]]


def plan(kind: BaseSweep, compose: Composer, words: Sequence[str], examine: Examine) -> list[Step]:
    """Return the steps of a benchmark; say which samplers do not serve which models.

    Args:
        kind: Which trainings.
        compose: Composes configurations.
        words: What was typed.
        examine: Builds what configurations name, and answers what it found; raises ValueError for mistakes.

    Raises:
        ValueError: words that do not go together.
    """
    if kind.is_adaptive:
        raise ValueError("sweep: a benchmark takes trainings that are known at its start; choose sweep=grid")
    own = {verb: keys(verb, folders()) for verb in VERBS}
    given = {verb: [word for word in words if verb in verbs_of(word, own)] for verb in VERBS}
    trainings = kind.jobs(compose.parse(given["train"]))
    variants = _variants(compose, given["sample"])
    evaluation = _single(compose, given["evaluate"], "evaluates each run in one way")
    report = _single(compose, given["report"], "writes one report")
    base = compose(evaluation)
    check_settings({**base, **compose(variants[0][0])})
    answer = examine(
        {
            "jobs": [[number, job, _of(compose(job), own["train"])] for number, job in enumerate(trainings)],
            "samplers": variants,
            "evaluation": {name: base[name] for name in ("metric", "extractor")},
        }
    )
    judged = [
        Variant(tuple(chosen), name, tuple(reasons))
        for (chosen, _), name, reasons in zip(variants, answer["names"], answer["reasons"], strict=True)
    ]
    _say_what_is_left_out(judged, trainings)
    chosen = [word for word in evaluation if not word.startswith("metric=")]
    metrics = tuple(name for name, node in base["metric"].items() if node is not None)
    return steps(trainings, judged, Evaluation(tuple(chosen), metrics, tuple(answer["judges"])), report)


def of_training(words: Sequence[str]) -> list[str]:
    """The words of a benchmark that its trainings are told."""
    own = {verb: keys(verb, folders()) for verb in VERBS}
    return [word for word in words if "train" in verbs_of(word, own)]


def _of(tree: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name in names}


def _single(compose: Composer, words: Sequence[str], what: str) -> list[str]:
    for word, override in zip(words, compose.parse(words), strict=True):
        if override.is_sweep_override():
            raise ValueError(f"'{word}' gives several values, and a benchmark {what}; give one")
    return list(words)


def _variants(compose: Composer, words: Sequence[str]) -> list[tuple[list[str], dict[str, Any]]]:
    """The words and the configuration of each sampler; a target or a kernel goes to those that take one."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for combination in GridSweep().jobs(compose.parse(words)):
        tree = compose(combination)
        used = [str(node.get("_target_")) for node in tree["sampler"].values() if isinstance(node, Mapping)]
        unused = tuple(group for group in TAKEN if tree[group]["_target_"] not in used)
        kept = [word for word in combination if word.split("=")[0].split(".")[0] not in unused]
        if not any(word.startswith("num_samples=") for word in kept):
            kept.append(f"num_samples={tree['num_samples']}")  # a benchmark's default is larger
        found[tuple(kept)] = _of(tree, ("sampler", *(group for group in TAKEN if group not in unused)))
    return [(list(kept), tree) for kept, tree in found.items()]


def _say_what_is_left_out(variants: Sequence[Variant], trainings: Sequence[Sequence[str]]) -> None:
    for variant in variants:
        by_reason: dict[str, list[int]] = {}
        for number, reason in enumerate(variant.reasons):
            if reason is not None:
                by_reason.setdefault(reason, []).append(number)
        for reason, numbers in by_reason.items():
            models = {word for number in numbers for word in trainings[number] if word.startswith("model=")}
            which = ", ".join(sorted(models)) or f"{len(numbers)} of {len(trainings)} trainings"
            print(f"left out: sampler={variant.name} for {which}: {reason}", file=sys.stderr)
