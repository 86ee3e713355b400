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

from vaebench.samplers.base import BaseSampler

# Settings that do not affect what a sampler learns.
NOT_LEARNT = ("refit", "temperature")
FITTED = "sampler.safetensors"  # the file name
FORMAT = "vaebench-sampler-1"
_log = logging.getLogger(__name__)


def origin(checkpoint: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the identity of the model and the data that a fitted sampler belongs to.

    Args:
        checkpoint: Hash of the weights of the model whose latents it learned.
        settings: Its plain configuration.
    """
    learnt = {name: value for name, value in settings.items() if name not in NOT_LEARNT}
    digest = hashlib.sha256(json.dumps(learnt, sort_keys=True).encode()).hexdigest()
    return {"checkpoint": checkpoint, "settings": digest}


def reuse(sampler: BaseSampler, path: Path, belongs_to: Mapping[str, str]) -> bool:
    """Give a sampler that was set up what is stored, if that belongs to the same checkpoint and settings.

    Args:
        sampler: As configured, after `setup`.
        path: Where a fitted sampler may lie.
        belongs_to: The `origin` that it must have.

    Returns:
        Whether it was there and is used; if not, the sampler must be fitted.
    """
    if sampler.refit or not path.is_file():
        return False
    reason = load(sampler, path, belongs_to)
    if reason is not None:
        _log.warning("the fitted sampler in '%s' %s; fitting anew", path, reason)
        return False
    _log.info("using the fitted sampler in '%s'; sampler.refit=true fits anew", path)
    return True


def load(sampler: BaseSampler, path: Path, belongs_to: Mapping[str, str]) -> str | None:
    """Give a sampler that was set up what is stored.

    Returns:
        None, or why it cannot be used, a clause that completes "the fitted sampler …".
    """
    expected = {name: (list(tensor.shape), tensor.dtype) for name, tensor in sampler.state_dict().items()}
    for name, most in sampler.most_rows.items():
        expected[name][0][0] = most
    size = sum(math.prod(shape) * dtype.itemsize for shape, dtype in expected.values())
    try:
        if path.stat().st_size > 2 * size + 2**20:
            return "is not what these settings would have fitted"
        with safe_open(path, framework="pt", device="cpu") as file:
            found = json.loads((file.metadata() or {}).get(FORMAT, "{}"))
            if not isinstance(found, dict) or found.get("checkpoint") != belongs_to["checkpoint"]:
                return "belongs to another checkpoint"
            if found.get("settings") != belongs_to["settings"]:
                return "was fitted with other settings"
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no dictionary
            for name, most in sampler.most_rows.items():
                if 0 < shapes.get(name, [0])[0] <= most:
                    expected[name][0][0] = shapes[name][0]
            if shapes != {name: shape for name, (shape, _) in expected.items()}:
                return "is not what these settings would have fitted"
            tensors = {name: file.get_tensor(name) for name in expected}
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        return f"is damaged ({' '.join(str(error).split())})"
    if any(tensor.dtype != expected[name][1] for name, tensor in tensors.items()):
        return "is not what these settings would have fitted"
    if not all(math.isfinite(float(t.double().sum())) for t in tensors.values() if t.is_floating_point()):
        return "is damaged (it holds numbers that are not finite)"
    sampler.load_state_dict(tensors)
    return None


def content(sampler: BaseSampler, belongs_to: Mapping[str, str]) -> bytes:
    """The file of a fitted sampler."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sampler.state_dict().items()}
    return save(tensors, {FORMAT: json.dumps(dict(belongs_to), sort_keys=True)})
