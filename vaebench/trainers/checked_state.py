"""Checks of a checkpoint before any of it is used: the shapes and types that this training would write.

torch believes what it loads: moments of another size than their parameter are read and written beyond their memory, a
schedule takes attributes of any name, a generator a position outside its state.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from vaebench.core import Model
from vaebench.hardware.random_streams import rng_state
from vaebench.trainers.divergence import DivergenceWatch
from vaebench.trainers.finite import FiniteCheck
from vaebench.trainers.interfaces import Observer
from vaebench.trainers.parts import Part

MAX_TEXT = 500  # characters; longer strings in a checkpoint are refused
UNFINISHED = ("refresh", "validate")
_NUMPY_POSITIONS = 624  # length of the Mersenne Twister's state


class Resumable(Protocol):
    """The attributes of a training that are compared with its checkpoint; `TrainingState` describes each."""

    model: Model
    parts: dict[str, Part]
    scaler: torch.amp.GradScaler | None
    finite: FiniteCheck
    carried: dict[str, Tensor]
    divergence: DivergenceWatch
    observer: Observer[Any]
    steps_per_epoch: int
    num_steps: int


def checked_state(tree: Mapping[str, Any], training: Resumable) -> dict[str, Any]:
    """Return what may be loaded of a checkpoint's tree.

    Args:
        tree: As `load_state` returned it.
        training: The training that is to go on, not yet stepped.

    Raises:
        ValueError: an entry is missing or not of the form that this training would have written.
    """
    counts = {name: _count(tree.get(name), name) for name in ("step", "epoch", "position", "metrics_offset")}
    _check_position(counts, tree.get("closed_step"), training)
    stored = _mapping(tree.get("parts"), "parts")
    return {
        **counts,
        "closed_step": tree["closed_step"],
        "unfinished": _unfinished(tree.get("unfinished")),
        "best": like(None, tree.get("best"), "best"),
        "model": _model(training.model, _mapping(tree.get("model"), "model")),
        "parts": {
            name: _part(part, _mapping(stored.get(name), f"parts.{name}"), f"parts.{name}")
            for name, part in training.parts.items()
        },
        "scaler": None if training.scaler is None else _scaler(training.scaler.state_dict(), tree.get("scaler")),
        "means": _means(_mapping(tree.get("means"), "means")),
        "carried": {
            name: _tensor(value, _mapping(tree.get("carried"), "carried").get(name), f"carried.{name}")
            for name, value in training.carried.items()
        },
        "finite": like(training.finite.state_dict(), tree.get("finite"), "finite"),
        "divergence": _divergence(training.divergence.state_dict(), tree.get("divergence")),
        "callbacks": _callbacks(
            training.observer.expected_state(training), _mapping(tree.get("callbacks"), "callbacks")
        ),
        "rng": _generators(_mapping(tree.get("rng"), "rng")),
    }


def like(expected: Any, found: Any, where: str) -> Any:
    """Return `found` if it is of the form of `expected`.

    Numbers stand for numbers, finite ones for finite ones and counts for counts; texts must be equal; tensors share
    shape and type. Where None or nothing is expected, a number, a short name, or scalars may have come since. Entries
    of a mapping that are not expected are left out, and those that are missing are as expected.

    Raises:
        ValueError: it is not; the sentence begins with `where`.
    """
    if isinstance(expected, Tensor):
        return _tensor(expected, found, where)
    if isinstance(expected, Mapping):
        _mapping(found, where)
        if not expected:
            return {_text(key, where): _scalar(value, f"{where}.{key}") for key, value in found.items()}
        values = {key: like(value, found.get(key, value), f"{where}.{key}") for key, value in expected.items()}
        return type(expected)(values)  # type: ignore[call-arg]
    if isinstance(expected, (list, tuple)):
        if type(found) is not type(expected) or (expected and len(found) != len(expected)):
            raise ValueError(f"{where}: expected {_form(expected)}, got {_form(found)}")
        if not expected:
            return type(expected)(_scalar(value, where) for value in found)
        pairs = enumerate(zip(expected, found, strict=True))
        return type(expected)(like(value, other, f"{where}[{i}]") for i, (value, other) in pairs)
    if expected is None:
        return _scalar(found, where)
    if isinstance(expected, (bool, str)):
        if type(found) is not type(expected) or (isinstance(expected, str) and found != expected):
            raise ValueError(f"{where}: expected {_form(expected)}, got {_form(found)}")
        return found
    return _number(expected, found, where)


def _check_position(counts: Mapping[str, int], closed_step: Any, training: Resumable) -> None:
    step, per_epoch = counts["step"], training.steps_per_epoch
    if counts["position"] > per_epoch or step != counts["epoch"] * per_epoch + counts["position"]:
        raise ValueError(
            f"position: step {step} is not step {counts['position']} of epoch {counts['epoch'] + 1}, with {per_epoch} "
            "steps an epoch"
        )
    if step > training.num_steps:
        raise ValueError(f"step: {step} is beyond the {training.num_steps} steps of the training; raise its length")
    if not isinstance(closed_step, int) or isinstance(closed_step, bool) or not -1 <= closed_step <= step:
        raise ValueError(f"closed_step: expected a step up to {step}, got {_form(closed_step)}")


def _unfinished(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value in UNFINISHED):
        return value
    raise ValueError(f"unfinished: expected {' or '.join(UNFINISHED)}, or nothing, got {_form(value)}")


def _model(model: torch.nn.Module, found: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights and buffers. A buffer that is empty before training may have grown along its first dimension."""
    expected = model.state_dict()
    names = sorted(set(expected) ^ set(found))
    if names:
        raise ValueError(f"model: {_form(names[0])} is {'missing' if names[0] in expected else 'not of this model'}")
    for name, value in expected.items():
        grows = value.ndim > 0 and value.shape[0] == 0
        other = found[name]
        if grows and isinstance(other, Tensor) and other.ndim == value.ndim and other.shape[1:] == value.shape[1:]:
            value = value.new_empty(other.shape) if other.dtype == value.dtype else value
        _tensor(value, other, f"model.{name}")
    return dict(found)


def _part(part: Any, found: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {
        "optimizer": _optimizer(part.optimizer, _mapping(found.get("optimizer"), where), f"{where}.optimizer"),
        "schedule": like(part.schedule.state_dict(), found.get("schedule"), f"{where}.schedule"),
    }


def _optimizer(optimizer: Optimizer, found: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Options of each group, and moments that fit their parameters.

    How a step is computed (fused, foreach, …) is the program's choice and not the file's.
    """
    expected = optimizer.state_dict()["param_groups"]
    given = found.get("param_groups")
    if not isinstance(given, list) or len(given) != len(expected):
        raise ValueError(f"{where}.param_groups: expected {_form(expected)}, got {_form(given)}")
    groups = []
    for own, group in zip(expected, given, strict=True):
        if _numbers(_mapping(group, where).get("params")) != own["params"]:
            raise ValueError(f"{where}.param_groups: it is of other parameters")
        chosen = {name for name, value in own.items() if value is None or isinstance(value, bool)} | {"params"}
        values = like({name: own[name] for name in own if name not in chosen}, group, where)
        groups.append({name: own[name] if name in chosen else values[name] for name in own})
    moments, state = moments_of(optimizer), {}
    for index, values in _mapping(found.get("state"), f"{where}.state").items():
        if not isinstance(index, int) or not 0 <= index < len(moments):
            raise ValueError(f"{where}.state: there is no parameter {_form(index)}")
        names = set(_mapping(values, f"{where}.state[{index}]"))
        if names != set(moments[index]):
            raise ValueError(
                f"{where}.state[{index}]: expected {_form(sorted(moments[index]))}, got {_form(list(names))}"
            )
        state[index] = {
            name: like(value, values[name], f"{where}.state[{index}].{name}") for name, value in moments[index].items()
        }
    return {"state": state, "param_groups": groups}


def _numbers(value: Any) -> list[int] | None:
    return value if isinstance(value, list) and all(isinstance(item, int) for item in value) else None


def moments_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return the state of each parameter after a step of an optimiser, as shapes and types that take no memory."""
    kind = type(optimizer)
    taken = set(inspect.signature(kind).parameters)
    options = {name: value for name, value in optimizer.defaults.items() if name in taken}
    options |= {name: False for name in ("foreach", "fused", "capturable", "differentiable") if name in taken}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for device in ("meta", "cpu"):
        copies = [torch.nn.Parameter(torch.zeros_like(p, device=device)) for p in parameters]
        for copy in copies:
            copy.grad = torch.zeros_like(copy)
        stepped = kind(copies, **options)
        try:
            stepped.step()
        except (NotImplementedError, RuntimeError):  # a step that reads values, which "meta" tensors lack
            continue
        return [dict(stepped.state[copy]) for copy in copies]
    raise AssertionError(f"{kind.__name__} cannot step by a gradient of 0")


def _generators(found: Mapping[str, Any]) -> dict[str, Any]:
    """States of the random generators that this machine has."""
    own = rng_state()
    try:
        version, words, gauss = found["python"]
        name, keys, position, has_gauss, numpy_gauss = found["numpy"]
    except (KeyError, TypeError, ValueError):
        raise ValueError("rng: expected the states of Python's and NumPy's generators") from None
    num_words = len(own["python"][1])
    are_words = isinstance(words, tuple) and len(words) == num_words and all(_is_count(w, 2**32) for w in words)
    if not _is_count(version, 4) or version != own["python"][0] or not are_words:
        raise ValueError("rng.python: expected the state of a Mersenne Twister")
    is_twister = isinstance(name, str) and name == own["numpy"][0]
    if not (is_twister and _is_count(position, _NUMPY_POSITIONS + 1) and _is_count(has_gauss, 2)):
        raise ValueError("rng.numpy: expected the state of a Mersenne Twister")
    _tensor(own["numpy"][1], keys, "rng.numpy")
    _scalar(gauss, "rng.python")
    _number(-1.0, numpy_gauss, "rng.numpy")
    devices = {
        key: _tensor(own[key], found[key], f"rng.{key}") for key in own.keys() - {"python", "numpy"} if key in found
    }
    if "torch" not in devices:
        raise ValueError("rng: expected the state of torch's generator")
    return {"python": found["python"], "numpy": found["numpy"], **devices}


def _means(found: Mapping[str, Any]) -> dict[str, Any]:
    names, sums, count = found.get("names"), found.get("sums"), _count(found.get("count"), "means.count")
    if not isinstance(names, list) or not isinstance(sums, list) or (sums and len(names) != len(sums)):
        raise ValueError("means: expected as many names as sums")
    if bool(sums) != bool(count):
        raise ValueError(f"means: {len(sums)} sums over {count} examples")
    zero = torch.zeros(())
    return {
        "names": [_text(name, "means.names") for name in names],
        "sums": [_tensor(zero, value, "means.sums") for value in sums],
        "count": count,
    }


def _scaler(expected: Mapping[str, Any], found: Any) -> dict[str, Any] | None:
    return None if found is None else like(dict(expected), found, "scaler")


def _callbacks(expected: Mapping[str, Any], found: Any) -> dict[str, Any]:
    """The states of the callbacks that are there now; one that was not there before starts afresh."""
    _mapping(found, "callbacks")
    states = {name: like(expected[name], found[name], f"callbacks.{name}") for name in expected if name in found}
    for name, state in states.items():
        for key, value in state.items():
            if isinstance(value, str) and not re.fullmatch(r"[\w. -]+", value, re.ASCII):
                raise ValueError(f"callbacks.{name}.{key}: expected a name, got {_form(value)}")
    return states


def _divergence(expected: Mapping[str, Any], found: Any) -> dict[str, Any]:
    state = like(expected, found, "divergence")
    return {
        **state,
        "first": {name: _number(math.inf, n, f"divergence.first.{name}") for name, n in state["first"].items()},
    }


def _tensor(expected: Tensor, found: Any, where: str) -> Tensor:
    if not isinstance(found, Tensor) or found.shape != expected.shape or found.dtype != expected.dtype:
        raise ValueError(f"{where}: expected {_form(expected)}, got {_form(found)}")
    return found


def _number(expected: float, found: Any, where: str) -> Any:
    is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
    wrong = (
        not is_number
        or found != found
        or (math.isfinite(expected) and not math.isfinite(found))
        or (isinstance(expected, int) and (found != int(found) or (expected > 0) > (found > 0) or found < -1))
        or (math.isfinite(expected) and not isinstance(expected, int) and expected >= 0 > found)
    )
    if wrong:
        raise ValueError(f"{where}: expected a number such as {expected!r}, got {_form(found)}")
    return found


def _scalar(value: Any, where: str) -> Any:
    """None, a finite number, a short name, or a tensor of one element."""
    if isinstance(value, str):
        return _text(value, where)
    is_plain = value is None or isinstance(value, bool) or (isinstance(value, (int, float)) and math.isfinite(value))
    if is_plain or (isinstance(value, Tensor) and value.ndim == 0):
        return value
    raise ValueError(f"{where}: expected a number, got {_form(value)}")


def _text(value: Any, where: str) -> str:
    if isinstance(value, str) and len(value) <= MAX_TEXT and value.isprintable():
        return value
    raise ValueError(f"{where}: expected a short text, got {_form(value)}")


def _count(value: Any, where: str) -> int:
    if _is_count(value, 2**53):
        return int(value)
    raise ValueError(f"{where}: expected a whole number, got {_form(value)}")


def _is_count(value: Any, below: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below


def _mapping(value: Any, where: str) -> Mapping[Any, Any]:
    if isinstance(value, Mapping):
        return value
    raise ValueError(f"{where}: expected a dictionary, got {_form(value)}")


def _form(value: Any) -> str:
    """Describe a value in few words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and type {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, (Sequence, Mapping)) and not isinstance(value, str) and len(value) > 4:
        return f"a {type(value).__name__} of length {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
