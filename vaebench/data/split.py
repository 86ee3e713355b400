"""One part of a data set (training, validation, test): batches by index, from memory or streamed from disk."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from vaebench.core import Batch
from vaebench.data.io.source import Source
from vaebench.hardware import collective
from vaebench.messages import counted

# A split that is streamed or too large to read at every start is fingerprinted by some of its rows.
FINGERPRINT_ROWS, FINGERPRINT_BYTES = 256, 2**30
# Up to this size a split is kept as float32, so that a batch is one index; a larger one is converted batch by batch.
FLOAT_BUDGET = 512 * 2**20


class DataSplit:
    """Examples, with their labels, contexts and factors where there are any, by position.

    What a batch holds depends on the indices alone, except under a random `transform`, which draws through
    `vaebench.hardware.collective` when the batch is handed out.

    Args:
        x: All examples as one tensor, shape (N, *shape), floating or uint8; or a `Source` that reads them from disk.
        y: Labels, int64, shape (N,), or contexts in their place, floating, shape (N, ...); or None.
        context: What a model is told about each example, float32, shape (N, ...), or None.
        factors: Ground-truth factors of variation, int64, shape (N, F), or None.
        scale: A stored uint8 value k stands for k / scale.
        transform: Applied to the x of every batch, shape (B, *shape) to the same; must not depend on the other rows.
        dtype: Of the x that batches hold: float32, or float64 for a model of that precision.
        float_budget: Bytes; larger tensors of uint8 are kept as they are and converted batch by batch.
    """

    def __init__(
        self,
        x: Tensor | Source,
        y: Tensor | None = None,
        *,
        context: Tensor | None = None,
        factors: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        scale: float = 255.0,
        transform: Callable[[Tensor], Tensor] | None = None,
        float_budget: int = FLOAT_BUDGET,
    ) -> None:
        for noun, field in (("label", y), ("context", context), ("row", factors)):
            if field is not None and len(field) != len(x):
                raise ValueError(f"expected {counted(len(x), noun)}, one for each example, got {len(field)}")
        self.dtype = dtype
        self.scale = scale
        self.transform = transform
        self._float_budget = float_budget
        if isinstance(x, Tensor):
            fits = x.dtype == torch.uint8 and 4 * x.numel() <= float_budget
            x = self._to_float(x) if fits or x.dtype != torch.uint8 else x
        self._x = x
        self.y = None if y is None else y.to(dtype if y.is_floating_point() else torch.int64)
        self.context = None if context is None else context.to(dtype)
        self.factors = None if factors is None else factors.to(torch.int64)
        self._device = x.device if isinstance(x, Tensor) else torch.device("cpu")

    def __len__(self) -> int:
        return len(self._x)

    def __repr__(self) -> str:
        kind = "in memory" if self.in_memory else "streamed"
        return f"Split({len(self)} x {self.shape}, {kind}, {self.device})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self._x.shape[1:]) if isinstance(self._x, Tensor) else self._x.shape

    @property
    def in_memory(self) -> bool:
        """Whether all examples are one tensor."""
        return isinstance(self._x, Tensor)

    @property
    def device(self) -> torch.device:
        """Where batches come out."""
        return self._device

    @property
    def nbytes(self) -> int:
        """Memory that the stored examples take, or would take if they were read; bytes."""
        dtype = self._x.dtype
        numel = len(self)
        for size in self.shape:
            numel *= size
        return numel * dtype.itemsize

    @property
    def x(self) -> Tensor:
        """All examples, shape (N, *shape), before a random transform.

        Raises:
            ValueError: The split is streamed from disk.
        """
        if not isinstance(self._x, Tensor):
            raise ValueError(
                f"expected a split in memory, got {counted(len(self), 'example')} streamed from disk; "
                f"raise dataset.memory_gib above {self.nbytes / 2**30:.3g} to read them all"
            )
        return self._to_float(self._x)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> DataSplit:
        """Return the same split with its tensors on `device`; a streamed one hands its batches out there.

        Args:
            device: Where batches come out.
            dtype: Of the x that batches hold; as it is by default.
        """
        moved = self._with(
            self._x.to(device) if isinstance(self._x, Tensor) else self._x,
            lambda field: field.to(device),
            self.dtype if dtype is None else dtype,
        )
        moved._device = moved._x.device if isinstance(moved._x, Tensor) else torch.device(device)
        return moved

    def subset(self, indices: Tensor | Sequence[int]) -> DataSplit:
        """Return the examples at `indices`, in that order; their positions count from 0 again.

        Raises:
            ValueError: An index is not a position of this split.
        """
        indices = torch.as_tensor(indices, dtype=torch.int64)
        if len(indices) and not (int(indices.min()) >= 0 and int(indices.max()) < len(self)):
            raise ValueError(f"expected indices from 0 to {len(self) - 1}, got {indices.min()} to {indices.max()}")
        if isinstance(self._x, Tensor):
            x: Tensor | Source = self._x.index_select(0, indices.to(self._x.device))
        else:
            x = self._x.take(indices.cpu())
        part = self._with(x, lambda field: field.index_select(0, indices.to(field.device)), self.dtype)
        part._device = self._device
        return part

    def _with(self, x: Tensor | Source, function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> DataSplit:
        """The same split with another x, and `function` applied to what goes with it."""
        y, context, factors = (
            None if field is None else function(field) for field in (self.y, self.context, self.factors)
        )
        return type(self)(
            x,
            y,
            context=context,
            factors=factors,
            dtype=dtype,
            scale=self.scale,
            transform=self.transform,
            float_budget=self._float_budget,
        )

    def fingerprint(self) -> str:
        """Hash the examples as they are stored, in their order, with what goes with them; hexadecimal SHA-256.

        Of a split that is streamed, or above 1 GiB, 256 rows stand for all, equally spaced.
        """
        n = len(self)
        is_whole = self.in_memory and self.nbytes <= FINGERPRINT_BYTES
        rows = torch.arange(n) if is_whole else torch.linspace(0, max(n - 1, 0), min(n, FINGERPRINT_ROWS)).long()
        digest = hashlib.sha256(f"{n} {self.shape} {self._x.dtype} {self.scale:g}".encode())
        raw = self._x if is_whole and isinstance(self._x, Tensor) else self._read(rows)
        for field in (raw, self.y, self.context, self.factors):
            if field is not None:
                digest.update(field.detach().cpu().contiguous().numpy().data if field.numel() else b"")
        return digest.hexdigest()

    def batch(self, indices: Tensor | Sequence[int]) -> Batch:
        """Return some examples.

        Args:
            indices: Positions, int64, shape (B,), on any device.

        Returns:
            x, shape (B, *shape), with labels, contexts and factors where the split has them, and the indices; all on
            `device`.
        """
        indices = torch.as_tensor(indices, dtype=torch.int64)
        return self._finish(self._read(indices), indices, self.device)

    def batches(
        self,
        order: Tensor | None = None,
        batch_size: int = 100,
        *,
        prefetch: int = 2,
        device: torch.device | str | None = None,
        sharded: bool = False,
    ) -> Iterator[Batch]:
        """Yield the examples in `order`, `batch_size` at a time; the last batch may be smaller.

        A background thread reads ahead where there is something to wait for: a disk, or the way to a GPU (through
        pinned memory). Random transforms are drawn when a batch is handed out, so generator states after batch k are
        those of a loop over `batch`.

        Args:
            order: Positions, int64, shape (M,); all of them in order by default.
            batch_size: Examples in a batch, over all processes together.
            prefetch: How many batches to read ahead.
            device: Where batches come out; `self.device` by default.
            sharded: Whether each process of a group gets only its rows of every batch (`collective.shard_of`), and
                random transforms draw what a single process would.
        """
        device = self.device if device is None else torch.device(device)
        order = torch.arange(len(self)) if order is None else torch.as_tensor(order, dtype=torch.int64)
        chunks = order.split(batch_size) if len(order) else ()
        # "cuda" means the current GPU, on which the examples may already lie.
        is_here = device.type == self.device.type and device.index in (None, self.device.index)
        waits = not self.in_memory or not is_here
        if not waits:
            # One transfer per epoch instead of one per batch.
            chunks = order.to(self.device).split(batch_size) if len(order) else ()
        pool = ThreadPoolExecutor(1, "vaebench-read") if waits and prefetch > 0 else None
        ahead: deque[Future[Tensor]] = deque()
        try:
            following = iter(chunks)
            for rows in chunks:
                while pool is not None and len(ahead) <= prefetch and (soon := next(following, None)) is not None:
                    ahead.append(pool.submit(self._read, _shard(soon, sharded), device))
                mine = _shard(rows, sharded)
                raw = ahead.popleft().result() if pool is not None else self._read(mine)
                part = collective.shard_of(len(rows))
                if sharded:
                    with collective.shard(part.start, part.stop, part.total):
                        batch = self._finish(raw, mine, device)
                else:
                    batch = self._finish(raw, mine, device)
                yield batch
        finally:
            if pool is not None:
                pool.shutdown(cancel_futures=True)

    def _read(self, indices: Tensor, device: torch.device | None = None) -> Tensor:
        """Rows as they are stored; pinned where they will travel to a GPU."""
        if isinstance(self._x, Tensor):
            raw = self._x.index_select(0, indices.to(self._x.device))
        else:
            raw = self._x.read(indices.cpu())
        pin = device is not None and device.type == "cuda" and raw.device.type == "cpu"
        return raw.pin_memory() if pin else raw

    def _finish(self, raw: Tensor, indices: Tensor, device: torch.device) -> Batch:
        """Bytes travel, floats are made where they are used."""
        x = self._to_float(raw.to(device, non_blocking=True))
        if self.transform is not None:
            x = self.transform(x)
        y, context, factors = (
            None if field is None else field.index_select(0, indices.to(field.device)).to(device)
            for field in (self.y, self.context, self.factors)
        )
        return Batch(x, y, context, factors, indices.to(device))

    def _to_float(self, x: Tensor) -> Tensor:
        if x.dtype == torch.uint8:
            return x.to(self.dtype).div_(self.scale)
        return x.to(self.dtype)


def _shard(rows: Tensor, sharded: bool) -> Tensor:
    if not sharded:
        return rows
    part = collective.shard_of(len(rows))
    return rows[part.start : part.stop]
