"""Averaged weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from vaebench.trainers.callbacks.callback import Callback

if TYPE_CHECKING:
    from vaebench.trainers.training import Training


class EMA(Callback):
    """Keeps an exponential moving average of the weights, which is what is evaluated and saved.

    average <- decay * average + (1 - decay) * weights after each step, from the first weights on. Buffers are not
    averaged: they are statistics already.

    Args:
        decay: In [0, 1).
    """

    on_every_rank: ClassVar[bool] = True

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"callback.ema.decay must be at least 0 and below 1, got {decay}")
        self.decay = decay
        self._weights: list[Tensor] = []
        self._averages: list[Tensor] = []

    def on_train_start(self, training: Training) -> None:
        """Start from the first weights, or from a checkpoint's averages."""
        self._weights = [p for p in training.model.parameters() if p.is_floating_point()]
        if not self._averages:
            self._averages = [p.detach().clone() for p in self._weights]
        self._averages = [average.to(training.device) for average in self._averages]
        training.average = self

    @torch.no_grad()
    def update(self) -> None:
        """Follow the weights by one step."""
        torch._foreach_lerp_(self._averages, self._weights, 1.0 - self.decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Context in which the model computes with the averages."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for i, weight in enumerate(self._weights):
            weight.data, self._averages[i] = self._averages[i], weight.data

    def state_dict(self) -> dict[str, Any]:
        """The averages."""
        return {"averages": list(self._averages)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self._averages = list(state["averages"])
