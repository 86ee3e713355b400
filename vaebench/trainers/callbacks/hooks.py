"""The callbacks of one training as one observer of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vaebench.hardware import collective
from vaebench.trainers.callbacks.callback import HOOKS, Callback
from vaebench.trainers.training import Training

log = logging.getLogger(__name__)


class Hooks:
    """For each hook the methods that do something, so that the others cost nothing at every step.

    On processes that do not write, only callbacks with `on_every_rank` run.

    Args:
        callbacks: All of them, in order.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.callbacks = list(callbacks)
        is_main = collective.rank() == 0
        running = [callback for callback in self.callbacks if is_main or callback.on_every_rank]
        self._functions: dict[str, list[Callable[..., None]]] = {
            name: [getattr(c, name) for c in running if getattr(type(c), name) is not getattr(Callback, name)]
            for name in HOOKS
        }

    def check(self, training: Training) -> None:
        """Let every callback refuse what cannot work, on every process."""
        for callback in self.callbacks:
            callback.check(training)

    def call(self, training: Training, hook: str, *arguments: Any) -> None:
        """Call one hook of every callback."""
        for function in self._functions[hook]:
            function(training, *arguments)

    def report_error(self, training: Training, error: BaseException) -> None:
        """Pass an error on to the callbacks; one that fails at that must not hide it."""
        for function in self._functions["on_exception"]:
            try:
                function(training, error)
            except Exception as another:
                log.warning("while the training ended: %s: %s", type(another).__name__, another)

    def state_dict(self) -> dict[str, Any]:
        """The state of each callback, by its name."""
        return {name: callback.state_dict() for name, callback in self._named().items()}

    def expected_state(self, training: Training) -> dict[str, Any]:
        """The state that each callback would have once training has begun, by its name."""
        return {name: callback.expected_state(training) for name, callback in self._named().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`; a callback that was not there before starts afresh."""
        for name, callback in self._named().items():
            if name in state:
                callback.load_state_dict(state[name])

    def _named(self) -> dict[str, Callback]:
        named: dict[str, Callback] = {}
        for callback in self.callbacks:
            name = type(callback).__name__
            same = sum(key.partition(" ")[0] == name for key in named)
            named[name if not same else f"{name} {same + 1}"] = callback
        return named
