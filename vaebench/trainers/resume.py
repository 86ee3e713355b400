"""Checkpoints read and compared: what two starts of one run must have in common, and what may not be saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vaebench.hardware import collective
from vaebench.messages import printable
from vaebench.runs.run import Run
from vaebench.trainers.finite import NonFiniteError
from vaebench.trainers.state import load_state


def read(path: Path, fingerprint: Mapping[str, Any], num_bytes: int) -> dict[str, Any]:
    """Read a state file.

    Args:
        path: The file.
        fingerprint: What it must have in common with this start.
        num_bytes: Size of the model.

    Raises:
        ValueError: it is damaged, or was written with other options; the sentence names the differing keys.
    """
    tree = load_state(path, num_bytes)
    differences = difference(tree.get("fingerprint"), fingerprint)
    if differences:
        raise ValueError(
            f"'{path}' was written with other options: {'; '.join(differences)}. Set them as they were, or choose "
            f"another hydra.run.dir"
        )
    return tree


def find(run: Run | None) -> Path | None:
    """The state file of the run of process 0, or None where it has none."""
    path = run.last_state if run is not None and run.last_state.is_file() else None
    text = collective.broadcast_text("" if path is None else str(path.resolve()))
    return Path(text) if text else None


def check_weights(model: nn.Module, step: int) -> None:
    """Refuse weights that are not finite.

    Raises:
        NonFiniteError: with the step and the first such weight.
    """
    named = {name: p for name, p in model.named_parameters() if p.is_floating_point() and p.numel()}
    if not named:
        return
    largest = torch.stack([norm.float() for norm in torch._foreach_norm(list(named.values()), float("inf"))])
    finite = torch.isfinite(largest)
    if not bool(finite.all()):
        name = list(named)[int((~finite).nonzero()[0])]
        raise NonFiniteError(
            f"step {step}: weight '{name}' is not finite; the last checkpoint is from before. Lower "
            f"trainer.learning_rate or set trainer.gradient_clip_norm"
        )


def difference(before: Any, now: Mapping[str, Any]) -> list[str]:
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
            words = [f"'{_text(name)}' was {_text(old.get(name))} and is {new.get(name)}" for name in inner[:2]]
            words += [f"{len(inner) - 2} more"] * (len(inner) > 2)
            found.append(f"{_text(key)}: {' and '.join(words)}")
        else:
            found.append(f"{_text(key)} was {_text(old)} and is {_text(new)}")
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if value is None or isinstance(value, (bool, int, float, str)) else f"a {type(value).__name__}"


def _text(value: Any) -> str:
    text = printable(value)
    return text if len(text) <= 100 else f"{text[:99]}…"
