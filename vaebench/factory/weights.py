"""Weights of another run as the first weights of a new one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vaebench.core import Model
from vaebench.factory.targets import ConfigError
from vaebench.messages import did_you_mean
from vaebench.runs.run import Run
from vaebench.trainers.state import load_weights


@dataclass(frozen=True)
class WarmStart:
    """Weights to start from.

    Attributes:
        weights: By the names of the model.
        record: Where they came from, for the provenance of the run.
    """

    weights: dict[str, Tensor]
    record: dict[str, Any]


def warm_start(model: Model, source: str, parts: Sequence[str] | None = None) -> WarmStart:
    """Load another run's weights into a model.

    Args:
        model: The model.
        source: A run directory, whose best weights are taken (the last ones where none were judged), or a file.
        parts: Names of parts of the model, as in `parts()` or of its modules; None takes all.

    Raises:
        ConfigError: there is no such run or file, or it holds the weights of another model.
    """
    path = _weights_file(Path(source).expanduser())
    try:
        found = load_weights(path)
    except ValueError as error:
        raise ConfigError(f"init_from: {error}") from None
    names = set(model.state_dict()) if parts is None else _names(model, parts)
    missing = sorted(names - set(found))
    if missing:
        raise ConfigError(
            f"init_from: '{path}' holds the weights of another model: it has no '{missing[0]}'"
            f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}; name the parts that fit: init_parts=[…]"
        )
    chosen = {name: found[name] for name in sorted(names)}
    difference = unequal_shapes(model, chosen)
    if difference:
        raise ConfigError(
            f"init_from: '{path}' holds the weights of another model: {difference}; set the same sizes, or name the "
            f"parts that fit: init_parts=[…]"
        )
    try:
        model.load_state_dict(chosen, strict=False)
    except RuntimeError as error:
        reason = " ".join(str(error).partition(":\n")[2].split()) or str(error)
        raise ConfigError(f"init_from: '{path}' holds the weights of another model: {reason[:300]}") from None
    return WarmStart(chosen, _record(path, parts))


def unequal_shapes(model: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Say which weights have other shapes than the model's of the same name; "" where none has."""
    own = model.state_dict()
    unequal = [name for name in sorted(weights) if name in own and own[name].shape != weights[name].shape]
    if not unequal:
        return ""
    there, here = tuple(weights[unequal[0]].shape), tuple(own[unequal[0]].shape)
    more = f", and {len(unequal) - 1} more differ" if len(unequal) > 1 else ""
    return f"'{unequal[0]}' has shape {there} there and {here} here{more}"


def _weights_file(source: Path) -> Path:
    if source.is_file():
        return source
    try:
        run = Run.open(source)
    except ValueError as error:
        raise ConfigError(str(error).replace("run:", "init_from:", 1)) from None
    if not run.has_weights:
        raise ConfigError(f"init_from: run '{source}' has no weights: it did not reach its first checkpoint")
    return run.best_weights if run.best_weights.is_file() else run.last_weights


def _names(model: Model, parts: Sequence[str]) -> set[str]:
    """Names of all tensors of some parts."""
    own = {id(module): name for name, module in model.named_modules()}
    own.update({id(parameter): name for name, parameter in model.named_parameters()})
    by_part = {name: [own[id(member)] for member in members] for name, members in model.parts().items()}
    modules = {name for name, _ in model.named_modules() if name}
    found: set[str] = set()
    for part in parts:
        if part not in by_part and part not in modules:
            raise ConfigError(f"init_parts: the model has no part '{part}'{did_you_mean(part, {*by_part, *modules})}")
        for prefix in by_part.get(part, [part]):
            found |= {name for name in model.state_dict() if not prefix or f"{name}.".startswith(f"{prefix}.")}
    return found


def _record(path: Path, parts: Sequence[str] | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "path": str(path.absolute()),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "parts": None if parts is None else list(parts),
    }
    run = Run(path.parent.parent)
    if run.status.is_file():
        status = run.read_status()
        record |= {"run": str(run.path.absolute()), "run_epoch": status.get("epoch"), "run_step": status.get("step")}
    return record
