"""A loss that grows beyond any use without ever being infinite."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)
FACTOR = 10.0  # times the first step's loss, far above any epoch's mean in a healthy training
FLOOR = 10.0  # nats; a first loss near zero sets no scale


class DivergenceWatch:
    """Compares the mean losses of each epoch with those of the first step.

    Args:
        enabled: False for a model whose losses measure a moving target, such as a critic's features: they may grow
            without end while all is well.

    Attributes:
        sentence: What is wrong with the last epoch, or None.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self.sentence: str | None = None
        self._first: dict[str, Tensor] = {}

    def note(self, terms: Mapping[str, Tensor]) -> None:
        """Keep the losses of the first step; nothing is read from the device."""
        if self.enabled and not self._first:
            self._first = {name: value for name, value in terms.items() if name == "loss" or name.endswith("_loss")}

    def check(self, epoch: int, means: Mapping[str, float]) -> None:
        """Warn where an epoch's mean is far above the first loss, once until it has come back."""
        was_diverged, self.sentence = self.sentence is not None, None
        for name, first in self._first.items():
            before, now = float(first), means.get(name)
            if now is not None and now > before + FACTOR * max(FLOOR, abs(before)):
                self.sentence = (
                    f"training has diverged: {name} was {before:.4g} in the first step and is {now:.4g} in epoch "
                    f"{epoch}; lower trainer.learning_rate or set trainer.gradient_clip_norm"
                )
                break
        if self.sentence is not None and not was_diverged:
            log.warning("%s", self.sentence)

    def state_dict(self) -> dict[str, Any]:
        """The first losses, and the last sentence."""
        return {"first": {name: float(value) for name, value in self._first.items()}, "sentence": self.sentence}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self._first = {name: torch.tensor(value) for name, value in state["first"].items()}
        self.sentence = state["sentence"]
