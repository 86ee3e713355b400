"""A fitted sampler on the disk: one safetensors file beside its samples, which says what it was fitted to."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from vaebench.core import ProgressFunction, Split
from vaebench.samplers.base import BaseSampler
from vaebench.samplers.latents import encode

# Settings that change how a fitted sampler draws, or whether it is used, but not what it learns.
NOT_LEARNT = ("refit", "temperature")
_log = logging.getLogger(__name__)


def origin(checkpoint: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """What a fitted sampler belongs to.

    Args:
        checkpoint: Hash of the weights of the model whose latents it learned.
        settings: Its plain configuration.
    """
    learnt = {name: value for name, value in settings.items() if name not in NOT_LEARNT}
    digest = hashlib.sha256(json.dumps(learnt, sort_keys=True).encode()).hexdigest()
    return {"checkpoint": checkpoint, "settings": digest}


def set_up(
    sampler: BaseSampler,
    model: Any,
    split: Split | None,
    path: Path,
    belongs_to: Mapping[str, str],
    progress: ProgressFunction | None = None,
) -> bool:
    """Set a sampler up, with what is stored where that belongs to the same checkpoint and settings, or else by fitting.

    Args:
        sampler: As configured.
        model: A trained model, in eval mode.
        split: Its training split.
        path: Where a fitted sampler may lie.
        belongs_to: The `origin` that it must have.
        progress: Told how far the fit is.

    Returns:
        Whether a stored sampler is used.
    """
    sampler.setup(model, split)
    if not sampler.learns:
        return False
    if not sampler.refit and path.is_file():
        reason = load(sampler, path, belongs_to)
        if reason is None:
            _log.info("using the fitted sampler in '%s'; sampler.refit=true fits anew", path)
            return True
        _log.warning("the fitted sampler in '%s' %s; fitting anew", path, reason)
    if split is None:
        raise ValueError(f"sampler={sampler.name} learns from the training split, got none")
    sampler.fit(encode(model, split), progress=progress)
    return False


def load(sampler: BaseSampler, path: Path, belongs_to: Mapping[str, str]) -> str | None:
    """Give a sampler that was set up what is stored.

    Returns:
        None, or why it cannot be used, a clause that completes "the fitted sampler …".
    """
    expected = sampler.state_dict()
    size = sum(tensor.nbytes for tensor in expected.values())
    try:
        if path.stat().st_size > 2 * size + 2**20:
            return "is not what these settings would have fitted"
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            for key, what in (("checkpoint", "checkpoint"), ("settings", "settings")):
                if metadata.get(key) != belongs_to[key]:
                    return f"belongs to another {what}" if what == "checkpoint" else "was fitted with other settings"
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no dictionary
            if shapes != {name: list(tensor.shape) for name, tensor in expected.items()}:
                return "is not what these settings would have fitted"
            tensors = {name: file.get_tensor(name) for name in expected}
    except (SafetensorError, OSError, ValueError) as error:
        return f"is damaged ({' '.join(str(error).split())})"
    if any(tensor.dtype != expected[name].dtype for name, tensor in tensors.items()):
        return "is not what these settings would have fitted"
    if not all(math.isfinite(float(t.double().sum())) for t in tensors.values() if t.is_floating_point()):
        return "is damaged (it holds numbers that are not finite)"
    sampler.load_state_dict(tensors)
    return None


def content(sampler: BaseSampler, belongs_to: Mapping[str, str]) -> bytes:
    """The file of a fitted sampler."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sampler.state_dict().items()}
    return save(tensors, dict(belongs_to))
