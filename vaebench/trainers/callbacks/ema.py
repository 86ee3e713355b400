"""Averaged weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from vaebench.messages import check_range
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.training import Training


class EMA(Callback):
    """Keeps an exponential moving average of the weights, which is what is evaluated and saved.

    average <- d_t * average + (1 - d_t) * weights after step t = 1, 2, ... that was taken, from the first weights on,
    with d_t = min(decay, (1 + t) / (10 + t)): so the first weights, which nothing has trained, are soon forgotten, and
    the average is over the last tenth of the steps or so until `decay` sets its length. Buffers are not averaged: they
    are statistics already.

    References:
        TensorFlow, ExponentialMovingAverage with num_updates, https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage
    Args:
        decay: Its largest value, in [0, 1).
    """

    on_every_rank: ClassVar[bool] = True

    def __init__(self, decay: float = 0.999) -> None:
        check_range("decay", decay, at_least=0, below=1)
        self.decay = decay
        self.num_updates = 0
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
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        torch._foreach_lerp_(self._averages, self._weights, 1.0 - decay)

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
        """The averages, and of how many steps they are."""
        return {"averages": list(self._averages), "num_updates": self.num_updates}

    def expected_state(self, training: Training) -> dict[str, Any]:
        """One average for each weight."""
        return {**self.state_dict(), "averages": [p for p in training.model.parameters() if p.is_floating_point()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self._averages, self.num_updates = list(state["averages"]), state["num_updates"]
