"""Checkpoints: everything that a training is made of, in one file that one rename puts in place."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vaebench.hardware import collective
from vaebench.hardware.random_streams import rng_state, set_rng_state
from vaebench.trainers.finite import NonFiniteError
from vaebench.trainers.state import load_state, save_state, save_weights

if TYPE_CHECKING:
    from vaebench.trainers.training import Training

log = logging.getLogger(__name__)


def save(training: Training) -> None:
    """Write weights and state. The rename of the state file makes the checkpoint; nothing before it counts.

    Raises:
        NonFiniteError: a weight is not finite; the previous checkpoint stays.
        OSError: the disk is full or not writable; the previous checkpoint stays.
    """
    training.finite.check()
    if training.run is None:
        return
    check_weights(training)
    tree = {
        "fingerprint": fingerprint(training),
        "step": training.step,
        "epoch": training.epoch,
        "position": training.position,
        "closed_step": training.closed_step,
        "model": dict(training.model.state_dict()),
        "parts": {name: part.state_dict() for name, part in training.parts.items()},
        "scaler": None if training.scaler is None else training.scaler.state_dict(),
        "means": training.means.state_dict(),
        "finite": training.finite.state_dict(),
        "callbacks": {name: callback.state_dict() for name, callback in named_callbacks(training).items()},
        "best": training.best,
        "rng": rng_state(),
        "metrics_offset": training.run.metrics_offset(),
    }
    training.call("on_save")
    save_weights(training.run.last_weights, training.weights())
    save_state(training.run.last_state, tree)
    training.set_status("running")


def restore(training: Training) -> bool:
    """Continue from the run's checkpoint, if it has one.

    Returns: whether there was one.

    Raises:
        ValueError: it is damaged, or was written with other options; the sentence names the differing keys.
    """
    path = _path_for_every_process(training)
    if path is None:
        return False
    tree = _read(path, training)
    try:
        training.model.load_state_dict(tree["model"])
        for name, part in training.parts.items():
            part.load_state_dict(tree["parts"][name])
        if training.scaler is not None and tree["scaler"] is not None:
            training.scaler.load_state_dict(tree["scaler"])
        training.means.load_state_dict(tree["means"], training.device)
        training.finite.load_state_dict(tree["finite"])
        for name, callback in named_callbacks(training).items():
            if name in tree["callbacks"]:  # a callback that was not there before starts afresh
                callback.load_state_dict(tree["callbacks"][name])
        training.step, training.epoch, training.position = tree["step"], tree["epoch"], tree["position"]
        training.closed_step, training.best = tree["closed_step"], tree["best"]
        if training.run is not None:
            training.run.truncate_metrics(tree["metrics_offset"])
        set_rng_state(tree["rng"])
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        sentence = " ".join(str(error).split())[:300]
        raise ValueError(f"checkpoint '{path}' does not fit this model: {sentence}") from None
    log.info("continuing at step %d (epoch %d)", training.step, training.epoch)
    return True


def check(training: Training) -> None:
    """Refuse a checkpoint as `restore` would, before anything in its directory is touched."""
    path = _path_for_every_process(training)
    if path is not None:
        _read(path, training)


def _read(path: Path, training: Training) -> dict[str, Any]:
    tree = load_state(path)
    differences = difference(tree.get("fingerprint"), fingerprint(training))
    if differences:
        raise ValueError(
            f"'{path}' was written with other options: {'; '.join(differences)}. Set them as they were, or choose "
            f"another hydra.run.dir"
        )
    return tree


def check_weights(training: Training) -> None:
    """Refuse weights that are not finite."""
    named = {name: p for name, p in training.model.named_parameters() if p.is_floating_point() and p.numel()}
    if not named:
        return
    largest = torch.stack([norm.float() for norm in torch._foreach_norm(list(named.values()), float("inf"))])
    finite = torch.isfinite(largest)
    if not bool(finite.all()):
        name = list(named)[int((~finite).nonzero()[0])]
        raise NonFiniteError(
            f"step {training.step}: weight '{name}' is not finite; the last checkpoint is from before. Lower "
            f"trainer.learning_rate or set trainer.gradient_clip_norm"
        )


def named_callbacks(training: Training) -> dict[str, Any]:
    """The callbacks under names that a checkpoint can hold."""
    named: dict[str, Any] = {}
    for callback in training.callbacks:
        name = type(callback).__name__
        same = sum(key.partition(" ")[0] == name for key in named)
        named[name if not same else f"{name} {same + 1}"] = callback
    return named


def fingerprint(training: Training) -> dict[str, Any]:
    """What two starts of one run must have in common."""
    shapes = {name: list(value.shape) for name, value in training.model.named_parameters()}
    return {
        **training.trainer.fingerprint(),
        "model": type(training.model).__name__,
        "model parameters": shapes,
        "dataset": str(getattr(training.dataset, "name", "")),
        "training examples": len(training.train),
        "validation examples": len(training.validation),
        "seed": training.seed,
    }


def difference(before: Any, now: dict[str, Any]) -> list[str]:
    """The keys in which a checkpoint and a configuration differ, in words."""
    if not isinstance(before, dict):
        return ["it holds no options"]
    found = []
    for key in [*now, *(key for key in before if key not in now)]:
        old, new = _plain(before.get(key)), _plain(now.get(key))
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            inner = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
            words = [f"'{name}' was {old.get(name)} and is {new.get(name)}" for name in inner[:2]]
            found.append(f"{key}: {', '.join(words)}" + (f" and {len(inner) - 2} more" if len(inner) > 2 else ""))
        else:
            found.append(f"{key} was {old} and is {new}")
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def _path_for_every_process(training: Training) -> Path | None:
    path = training.run.last_state if training.run is not None and training.run.last_state.is_file() else None
    text = collective.broadcast_text("" if path is None else str(path.resolve()))
    return Path(text) if text else None
