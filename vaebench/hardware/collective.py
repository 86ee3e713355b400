"""One computation over several processes: random draws and batch statistics that do not depend on how many there are.

Every draw of a model goes through this module. Each process draws the noise of the *global* batch from the same
generator state and keeps the rows of its own shard, so that N processes compute what one would. With a single process
every function is the plain torch call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Shard:
    """The rows [start, stop) of a global batch of `total` rows that belong to this process.

    `together` are the rows that all processes hold at the same time, as (start, stop) pairs, where these are not all:
    a large batch that is worked on in pieces.
    """

    start: int
    stop: int
    total: int
    together: tuple[tuple[int, int], ...] | None = None


_current: Shard | None = None


def is_distributed() -> bool:
    """Whether a process group of more than one process is up."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's number, 0 where there is only one."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if is_distributed() else 1


def broadcast_text(text: str) -> str:
    """Return the text that process 0 gave; every process of a group calls this."""
    if not is_distributed():
        return text
    given = [text]
    dist.broadcast_object_list(given, 0)
    return given[0]


def shard_of(total: int) -> Shard:
    """The contiguous rows of a global batch of `total` that fall to this process."""
    r, n = rank(), world_size()
    return Shard(total * r // n, total * (r + 1) // n, total)


@contextmanager
def shard(start: int, stop: int, total: int, together: tuple[tuple[int, int], ...] | None = None) -> Iterator[None]:
    """Within this context a leading batch dimension of `stop - start` means rows start..stop of `total`."""
    global _current
    before, _current = _current, Shard(start, stop, total, together)
    try:
        yield
    finally:
        _current = before


def current_shard() -> Shard | None:
    """The shard in force, or None in a single process."""
    return _current if _current is not None and _current.total != _current.stop - _current.start else None


def _rows(draw: Callable[[tuple[int, ...]], Tensor], shape: tuple[int, ...], dim: int) -> Tensor:
    part = current_shard()
    if part is None:
        return draw(shape)
    if shape[dim] != part.stop - part.start:
        raise ValueError(
            f"expected {part.stop - part.start} rows in dimension {dim} of shape {shape}, the rows of this "
            f"process's shard; a draw of another size cannot agree between processes"
        )
    full = (*shape[:dim], part.total, *shape[dim + 1 :])
    return draw(full).narrow(dim, part.start, part.stop - part.start)


def standard_normal(
    shape: tuple[int, ...], like: Tensor, dim: int = 0, generator: torch.Generator | None = None
) -> Tensor:
    """Draw from N(0, 1).

    Args:
        shape: Shape of this process's part.
        like: Gives dtype and device.
        dim: The batch dimension, along which processes share the global batch.
        generator: None is torch's global one.
    """
    options = _options(like, generator)
    return _rows(lambda s: torch.randn(s, **options), tuple(shape), dim)


def uniform(shape: tuple[int, ...], like: Tensor, dim: int = 0, generator: torch.Generator | None = None) -> Tensor:
    """Draw from U[0, 1); arguments as in `standard_normal`."""
    options = _options(like, generator)
    return _rows(lambda s: torch.rand(s, **options), tuple(shape), dim)


def _options(like: Tensor, generator: torch.Generator | None) -> dict[str, Any]:
    # torch.compile rejects a generator, even None, together with a dynamic size
    given = {} if generator is None else {"generator": generator}
    return {"dtype": like.dtype, "device": like.device, **given}


def permutation(n: int, device: torch.device | str = "cpu") -> Tensor:
    """Draw one permutation of range(n), shape (n,), the same in every process whose generators agree."""
    return torch.randperm(n, device=device)


def gather(x: Tensor) -> Tensor:
    """Concatenate a batch-first tensor over processes, in the order of the global batch; gradients flow back.

    Args:
        x: Shape (B, ...); B may differ by one between processes.

    Returns:
        Shape (sum of B, ...): the rows that all processes hold now. In a single process `x` itself.
    """
    if not is_distributed() or current_shard() is None:
        return x
    part = current_shard()
    assert part is not None
    if x.shape[0] != part.stop - part.start:
        raise ValueError(f"expected the {part.stop - part.start} rows of this process's shard, got {x.shape[0]}")
    full = _Gather.apply(x, part.start, part.stop, part.total)
    return full if part.together is None else torch.cat([full[start:stop] for start, stop in part.together])


def total(x: Tensor) -> Tensor:
    """Add up a statistic of this process's rows over all processes, without gradients; any shape."""
    if not is_distributed() or current_shard() is None:
        return x
    everywhere = x.detach().clone()
    dist.all_reduce(everywhere)
    return everywhere


class _Gather(torch.autograd.Function):
    """All-gather by summing zero-padded parts; its adjoint is a sum over processes and a slice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, start: int, stop: int, total: int) -> Tensor:
        ctx.rows = (start, stop)
        full = x.new_zeros((total, *x.shape[1:]))
        full[start:stop] = x
        dist.all_reduce(full)
        return full

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        start, stop = ctx.rows
        return grad[start:stop], None, None, None
