"""The configuration of a run that goes on: what was stored, with what the command line says now on top."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vaebench.factory.targets import ConfigError
from vaebench.runs.identity import counts

_ABSENT = object()


def continued(stored: Mapping[str, Any], composed: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Put what the user typed now on top of a stored configuration.

    Args:
        stored: The run's configuration.
        composed: What the command line alone composes to.
        overrides: The words of the command line, as Hydra records them (`trainer.num_epochs=3`, `hardware=gpu`).

    Returns: the stored values, except for the keys that were typed, whose values are those of `composed`.
    """
    result = _copy(stored)
    for word in overrides:
        group, _, package = word.partition("=")[0].lstrip("+~").partition("@")
        path = (package or group).replace("/", ".").split(".")
        if path[0] in ("resume", "hydra"):
            continue
        if path[0] in ("experiment", "_global_"):  # an overlay can change any key
            return _copy(composed)
        _put(result, path, _get(composed, path))
    return result


def refuse_differences(before: Mapping[str, Any], after: Mapping[str, Any], *, path_counts: bool = True) -> list[str]:
    """Compare the configuration of a run before and after.

    Args:
        before: As stored.
        after: As asked for.
        path_counts: Whether the path of the data counts: not where it is known that they are the same.

    Returns: the keys that differ; none of them belongs to the run's identity.

    Raises:
        ConfigError: the identity differs; the sentence lists the keys with both values.
    """
    found = {key: values for key, *values in _differences(before, after)}
    wrong = {key: values for key, values in found.items() if counts(key, path=path_counts)}
    if wrong:
        listed = "; ".join(f"{key} was {_shown(old)}, now {_shown(new)}" for key, (old, new) in wrong.items())
        raise ConfigError(
            f"the run was started with another configuration: {listed}; leave these out to continue it; "
            "to start a new run from its weights give init_from=<run>, to start anew choose another hydra.run.dir"
        )
    return list(found)


def _differences(before: object, after: object, key: str = "") -> Iterator[tuple[str, object, object]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in dict.fromkeys([*before, *after]):
            path = f"{key}.{name}" if key else str(name)
            yield from _differences(before.get(name, _ABSENT), after.get(name, _ABSENT), path)
    elif before != after or isinstance(before, bool) != isinstance(after, bool):
        yield key, before, after


def _shown(value: object) -> str:
    if value is _ABSENT:
        return "absent"
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _copy(tree: Any) -> Any:
    return {name: _copy(value) for name, value in tree.items()} if isinstance(tree, Mapping) else tree


def _get(tree: Any, path: list[str]) -> Any:
    for name in path:
        if not isinstance(tree, Mapping) or name not in tree:
            return _ABSENT
        tree = tree[name]
    return _copy(tree)


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    *above, last = path
    for name in above:
        if not isinstance(tree.get(name), dict):
            tree[name] = {}
        tree = tree[name]
    if value is _ABSENT:
        tree.pop(last, None)
    else:
        tree[last] = value
