"""Every stream of random numbers in the program, and the generators' states."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

import torch


class Stream(IntEnum):
    """Purposes of random numbers. Each has a stream of its own, so that none depends on another.

    Numbers are part of a run's reproducibility: a new purpose takes the next one, and none is ever changed.
    """

    TRAINING = 1
    VALIDATION = 2
    END_EPOCH = 3
    PREDICTION = 4
    IMAGES = 5
    POSTERIOR_COLLAPSE = 6
    BEFORE_TRAINING = 7
    SAMPLER = 8


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and every torch generator."""
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed must be an integer from 0 to 2^63 - 1, got {seed}")
    random.seed(seed)
    _numpy_seed(seed)
    torch.manual_seed(seed)


def _numpy_seed(seed: int) -> None:
    import numpy as np

    np.random.seed(seed % 2**32)


def rng_state() -> dict[str, Any]:
    """The state of every generator: plain values and tensors."""
    import numpy as np

    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (
            str(name),
            torch.from_numpy(np.asarray(keys).astype("int64")),
            int(position),
            int(has_gauss),
            float(gauss),
        ),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()  # only this process's GPU
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Set every generator that both the state and this machine have."""
    import numpy as np

    random.setstate(state["python"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype("uint32"), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
    if torch.backends.mps.is_available() and "mps" in state:
        torch.mps.set_rng_state(state["mps"])


def seed_stream(seed: int, stream: Stream, *numbers: int) -> None:
    """Seed every generator for one purpose.

    Args:
        seed: The run's seed.
        stream: The purpose.
        *numbers: What tells its draws apart, such as the epoch.
    """
    combined = 0
    for number in (seed, stream, *numbers):
        combined = (combined * 1_000_003 + number + 1) % 2**63
    seed_everything(combined)


@contextlib.contextmanager
def fixed_rng(seed: int, stream: Stream, *numbers: int) -> Iterator[None]:
    """Seed every generator as `seed_stream` does inside, and leave them outside as if nothing had been drawn."""
    before = rng_state()
    try:
        seed_stream(seed, stream, *numbers)
        yield
    finally:
        set_rng_state(before)
