"""The identity of an experiment: which settings make two runs the same. Needs neither torch nor omegaconf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The length of a training, not its kind: an interrupted run may continue with other values.
LENGTH = (
    "trainer.num_epochs",
    "trainer.num_steps",
    "trainer.max_minutes",
    "trainer.patience",
    "callback.early_stopping",
)
# Hardware, callbacks, the place of the data and of the run, and optional output files.
APPARATUS = ("hardware", "callback", "dataset.root", "run", "resume", "hydra", "animation", "netcdf")
# Exceptions: callbacks that change the weights.
_CALLBACKS = ("callback.ema",)


def identity(
    config: Mapping[str, Any], *, seed: bool = True, length: bool = False, path: bool = True
) -> dict[str, Any]:
    """Return what counts of a configuration, under dotted keys.

    Two runs with equal identities are one experiment, begun twice or gone on with.

    Args:
        config: A run's configuration, nested or under dotted keys.
        seed: Whether the seed counts; without it, what is left is the same for the repetitions of an experiment.
        length: Whether the length counts: a run of 10 epochs does not repeat one of 100.
        path: Whether the path of the data counts: not where a fingerprint says that they are the same.
    """
    return {key: value for key, value in flat(config).items() if counts(key, seed=seed, length=length, path=path)}


def counts(key: str, *, seed: bool = True, length: bool = False, path: bool = True) -> bool:
    """Whether a dotted key of a configuration belongs to the identity; arguments as for `identity`."""
    if _is_among(key, LENGTH):
        return length
    if _is_among(key, ("seed",)):
        return seed
    if _is_among(key, ("dataset.path",)):
        return path
    return _is_among(key, _CALLBACKS) or not _is_among(key, APPARATUS)


def flat(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return a nested configuration under dotted keys; an empty mapping has none."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{above}.{name}" if above else str(name)
        if isinstance(value, Mapping):
            found.update(flat(value, key))
        else:
            found[key] = value
    return found


def _is_among(key: str, keys: tuple[str, ...]) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in keys)
