"""A stored configuration may not ask for a network far larger than the weights that lie beside it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vaebench.factory.targets import ConfigError

MIN_BYTES = 2**30  # always allowed, however small the file
MIN_TENSORS = 20_000
BYTES_RATIO = 16  # memory while building, relative to the file
BYTES_OF_A_TENSOR = 100  # minimum in a file per tensor, for its name and shape
_MAKERS = ("empty", "zeros", "ones", "full", "rand")
_SQUARES = ("eye", "tril_indices", "triu_indices")


@contextlib.contextmanager
def bounded_by(path: Path | None) -> Iterator[None]:
    """Context in which a model is built for the weights in a file.

    Args:
        path: The file; None sets no bound.

    Raises:
        ConfigError: the model is far larger than the file, before it takes the memory.
    """
    if path is None or not path.is_file():
        yield
        return
    size = path.stat().st_size
    with _Allocations(max(MIN_BYTES, BYTES_RATIO * size), max(MIN_TENSORS, size // BYTES_OF_A_TENSOR), path):
        yield


class _Allocations(TorchDispatchMode):
    """Counts the tensors that are made, and their bytes, before and after each operation."""

    def __init__(self, most_bytes: int, most_tensors: int, path: Path) -> None:
        super().__init__()
        self.most_bytes, self.most_tensors, self.path = most_bytes, most_tensors, path
        self.num_bytes = self.num_tensors = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        self._check(self.num_bytes + 4 * _numbers(str(func.overloadpacket.__name__), args))
        result = func(*args, **(kwargs or {}))
        known = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in known:
                self.num_bytes += leaf.untyped_storage().nbytes()
                self.num_tensors += 1
        self._check(self.num_bytes)
        return result

    def _check(self, num_bytes: int) -> None:
        if num_bytes > self.most_bytes or self.num_tensors > self.most_tensors:
            raise ConfigError(
                f"model: the stored configuration asks for a far larger network than '{self.path}' holds "
                f"({self.path.stat().st_size:,} bytes)"
            )


def _numbers(operation: str, args: tuple[Any, ...]) -> int:
    """How many numbers an operation is asked to make, by its sizes."""
    if any(maker in operation for maker in _MAKERS):
        sizes = next((arg for arg in args if isinstance(arg, (list, tuple, torch.Size))), ())
        return math.prod(size for size in sizes if isinstance(size, int))
    if operation in _SQUARES:
        sides = [arg for arg in args if isinstance(arg, int)]
        return math.prod(sides) if len(sides) > 1 else sides[0] ** 2 if sides else 0
    return 0
