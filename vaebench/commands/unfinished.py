"""Chains that were interrupted: where they lie, and whether a command may go on from them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vaebench import __version__
from vaebench.mcmc.unfinished import Unfinished
from vaebench.runs.run import DIED, Run
from vaebench.samplers.base import BaseSampler
from vaebench.samplers.markov_chains import MarkovChainSampler

FILE = "unfinished.safetensors"
_log = logging.getLogger(__name__)


def unfinished(folder: Path, choices: Mapping[str, Any], device: object, checkpoint: str | None = None) -> Unfinished:
    """Return the file in a sampler's folder; it belongs to these settings, this device and this version alone.

    Args:
        folder: The sampler's folder.
        choices: The plain configuration.
        device: Where the chains run.
        checkpoint: Hash of the weights of the model.
    """
    origin = {
        "version": __version__,
        "device": str(device),
        "checkpoint": checkpoint,
        **{key: choices[key] for key in ("sampler", "seed", "num_samples")},
    }
    digest = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()
    return Unfinished(folder / FILE, digest)


@contextmanager
def kept(sampler: BaseSampler, file: Unfinished, again: str) -> Iterator[None]:
    """Context in which chains are kept when they are interrupted; other samplers have nothing to keep.

    Args:
        sampler: Draws within the context.
        file: Where chains are kept.
        again: How the user goes on, for the sentence that is logged on an interruption.
    """
    if not isinstance(sampler, MarkovChainSampler):
        yield
        return
    sampler.unfinished = file
    try:
        yield
    except KeyboardInterrupt:
        if file.path.is_file():
            _log.warning("interrupted; %s goes on from what was drawn", again)
        else:
            _log.warning("interrupted before the first draw; %s begins again", again)
        raise


def may_continue(run: Run, sampler: str) -> bool:
    """Whether a run directory without a model holds chains of this sampler that did not come to their end."""
    if not run.config.is_file() or run.read_status().get("status") not in ("interrupted", "failed", DIED):
        return False
    samples = run.path / "samples"
    others = [entry.name for entry in samples.iterdir() if entry.name != sampler] if samples.is_dir() else []
    return not others and not (run.samples(sampler) / "samples.safetensors").is_file()
