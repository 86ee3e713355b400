"""The hooks that the callbacks of one training fill."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from vaebench.trainers.callbacks.callback import HOOKS, Callback

if TYPE_CHECKING:
    from vaebench.trainers.training import Training

log = logging.getLogger(__name__)


class Hooks:
    """For each hook the methods that do something, so that the others cost nothing at every step.

    Args:
        callbacks: All of them, in order.
        is_main: Whether this process writes; on others only callbacks with `on_every_rank` run.
    """

    def __init__(self, callbacks: Iterable[Callback], is_main: bool) -> None:
        running = [callback for callback in callbacks if is_main or callback.on_every_rank]
        self._functions: dict[str, list[Callable[..., None]]] = {
            name: [getattr(c, name) for c in running if getattr(type(c), name) is not getattr(Callback, name)]
            for name in HOOKS
        }

    def call(self, training: Training, hook: str, *arguments: Any) -> None:
        """Call one hook of every callback."""
        for function in self._functions[hook]:
            function(training, *arguments)

    def tell(self, training: Training, error: BaseException) -> None:
        """Tell the callbacks of an error; one that fails at that must not hide it."""
        for function in self._functions["on_exception"]:
            try:
                function(training, error)
            except Exception as another:
                log.warning("while the training ended: %s: %s", type(another).__name__, another)
