"""Check the configurations of jobs by building what they name, in a process of its own: it needs torch.

Data are read where they lie, never downloaded; where they are missing, the model is left to the job.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from vaebench import factory
from vaebench.data.io.download import DownloadForbiddenError, downloads_forbidden

Tree = Mapping[str, Any]
_BUILT = (factory.trainer, factory.callbacks, factory.hardware)


class Checker:
    """Builds each part of many configurations once, and keeps what became of it."""

    def __init__(self) -> None:
        self._reasons: dict[str, str | None] = {}
        self._shapes: dict[str, SimpleNamespace | None] = {}

    def mistakes(self, jobs: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """Return the number, overrides and sentence of each job whose configuration is wrong.

        Args:
            jobs: For each its number, its overrides and its configuration as plain values.
        """
        found = []
        for number, overrides, tree in jobs:
            try:
                factory.check({"seed": tree.get("seed", 0)})
                self._try("check", {name: node for name, node in tree.items() if name != "seed"}, factory.check, tree)
                for part in _BUILT:
                    self._try(part.__name__, tree.get(part.__name__.removesuffix("s")), part, tree)
                self._try("model", [tree["model"], tree["dataset"]], self.model, tree)
            except ValueError as error:
                found.append([number, overrides, str(error)])
        return found

    def model(self, tree: Tree) -> Any:
        """Return the model of a configuration in eval mode, or None where its data are not there yet."""
        data = self._data(tree)
        return None if data is None else factory.model(tree, data).eval()

    def _data(self, tree: Tree) -> SimpleNamespace | None:
        """What a model is told of its data; the data themselves are let go."""
        key = json.dumps(tree["dataset"], sort_keys=True)
        if key not in self._shapes:
            try:
                with downloads_forbidden():
                    data = factory.dataset({"dataset": tree["dataset"]})
            except ValueError as error:
                if not isinstance(error.__cause__, DownloadForbiddenError):
                    raise
                self._shapes[key] = None
                return None
            config, likelihood = data.likelihood_config(), data.likelihood
            self._shapes[key] = SimpleNamespace(
                name=data.name, shape=data.shape, num_classes=data.num_classes, likelihood=likelihood,
                likelihood_config=lambda: config,
            )  # fmt: skip
        return self._shapes[key]

    def _try(self, name: str, node: Any, build: Any, tree: Tree) -> None:
        key = f"{name} {json.dumps(node, sort_keys=True)}"
        if key not in self._reasons:
            self._reasons[key] = None
            try:
                build(tree)
            except ValueError as error:
                self._reasons[key] = str(error)
            except Exception as error:  # a bug, not a user's mistake: the job will show its traceback
                logging.getLogger(__name__).debug("%s: %s", name, error)
        reason = self._reasons[key]
        if reason is not None:
            raise ValueError(reason)


def mistakes(jobs: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """As `Checker.mistakes`."""
    return Checker().mistakes(jobs)


def examine(question: Mapping[str, Any]) -> dict[str, Any]:
    """Answer what a benchmark must know before it starts.

    Args:
        question: "jobs" as for `Checker.mistakes`; for a benchmark also "samplers", each its words and configuration,
            and "evaluation", a configuration with the metrics.

    Returns: "mistakes" as above, where the number is None for what belongs to no training; for a benchmark "names" of
        the samplers, "reasons", for each sampler those against each training's model, null where it serves, and
        "judges", the metrics that judge samples.
    """
    checker = Checker()
    found = checker.mistakes(question["jobs"])
    if found or "samplers" not in question:
        return {"mistakes": found}
    samplers = []
    for words, tree in question["samplers"]:
        try:
            factory.check(tree)
            samplers.append(factory.sampler(tree))
            if not samplers[-1].needs_model:
                raise ValueError(f"sampler={samplers[-1].name} draws from an energy; a benchmark samples its models")
        except ValueError as error:
            found.append([None, words, str(error)])
    evaluation = question["evaluation"]
    try:
        factory.check(evaluation)
        metrics = factory.metrics(evaluation)
    except ValueError as error:
        found.append([None, [], str(error)])
    if found:
        return {"mistakes": found}
    return {
        "mistakes": [],
        "names": [sampler.name for sampler in samplers],
        "reasons": _reasons(checker, samplers, [tree for *_, tree in question["jobs"]]),
        "judges": [name for name, metric in metrics.items() if "samples" in metric.needs],
    }


def _reasons(checker: Checker, samplers: Sequence[Any], trees: Sequence[Tree]) -> list[list[str | None]]:
    by_model: dict[str, list[str | None]] = {}
    rows = []
    for tree in trees:
        key = json.dumps([tree["model"], tree["dataset"]], sort_keys=True)
        if key not in by_model:
            model = checker.model(tree)
            by_model[key] = [None if model is None else sampler.why_not(model) for sampler in samplers]
        rows.append(by_model[key])
    return [[row[place] for row in rows] for place in range(len(samplers))]


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        answer = examine(json.load(sys.stdin))
    json.dump(answer, sys.stdout)
