"""The words that every room shares: a batch, a loss, and the nearest valid name for a message."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from vaebench.names import did_you_mean as did_you_mean
from vaebench.names import nearest as nearest


@dataclass(frozen=True)
class Batch:
    """Examples that travel together.

    Attributes:
        x: Data, shape (B, *shape).
        y: Labels, shape (B,), or None where the data set has none.
        index: Positions of the examples in their split, shape (B,), or None.
    """

    x: Tensor
    y: Tensor | None = None
    index: Tensor | None = None

    def __len__(self) -> int:
        return self.x.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> Batch:
        return Batch(
            self.x[rows],
            None if self.y is None else self.y[rows],
            None if self.index is None else self.index[rows],
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the same examples on `device`."""
        return Batch(
            self.x.to(device, non_blocking=non_blocking),
            None if self.y is None else self.y.to(device, non_blocking=non_blocking),
            None if self.index is None else self.index.to(device, non_blocking=non_blocking),
        )


@dataclass
class Loss:
    """What a model minimises.

    Attributes:
        total: Scalar to minimise, nats per example.
        terms: Named scalars for the logs, detached.
    """

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def mean(cls, per_example: Tensor, **terms: Tensor) -> Loss:
        """Average over the batch.

        Args:
            per_example: What is minimised, nats, shape (B,).
            **terms: Its parts, each of shape (B,) or scalar.
        """
        return cls(per_example.mean(), {name: value.detach().mean() for name, value in terms.items()})


def at_least_float32(x: Tensor) -> Tensor:
    """Return x in float32, or in float64 where it has that: log-densities are never computed in half precision."""
    return x if x.dtype == torch.float64 else x.float()
