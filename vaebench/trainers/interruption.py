"""Work that is given up when a signal comes, and begun anew later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


class SignalReceived(BaseException):
    """A signal came in the middle of work that can be begun anew.

    Args:
        signum: The signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """Context after which the buffers of a model are as before if a signal ended it; otherwise what was made of them.

    They may change in number of rows, so that the modules get the former tensors themselves back.
    """
    former = [
        (module, {n: b if b is None else b.clone() for n, b in module._buffers.items()}) for module in model.modules()
    ]
    try:
        yield
    except SignalReceived:
        for module, buffers in former:
            module._buffers.update(buffers)
        raise
