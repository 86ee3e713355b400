"""Means over an epoch, summed on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class RunningMeans:
    """Means of named scalars, weighted by numbers of examples; nothing is read from the device before `values`."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sums: list[Tensor] = []
        self._count = 0

    def add(self, terms: Mapping[str, Tensor], num_examples: int) -> None:
        """Add scalars that are means over `num_examples`.

        Raises:
            ValueError: the names differ from those of earlier calls.
        """
        if not self._sums:
            self._names = list(terms)
            self._sums = [torch.zeros_like(value, dtype=torch.float32) for value in terms.values()]
        elif self._names != list(terms):
            raise ValueError(f"a loss must have the same terms at every step: had {self._names}, got {list(terms)}")
        values = list(terms.values())
        if any(value.dtype != torch.float32 for value in values):
            values = [value.float() for value in values]
        torch._foreach_add_(self._sums, values, alpha=num_examples)
        self._count += num_examples

    def values(self, over_processes: bool = False) -> dict[str, float]:
        """Return the means.

        Args:
            over_processes: Whether each process added examples of its own.
        """
        if not self._sums:
            return {}
        sums = torch.stack(self._sums).double() if self._sums[0].device.type != "mps" else torch.stack(self._sums)
        count = torch.full((1,), self._count, dtype=sums.dtype, device=sums.device)
        both = torch.cat([sums, count])
        if over_processes:
            torch.distributed.all_reduce(both)
        *totals, number = both.tolist()
        return {name: total / number for name, total in zip(self._names, totals, strict=True)}

    def clear(self) -> None:
        """Start anew."""
        self._sums, self._count = [], 0

    def state_dict(self) -> dict[str, Any]:
        """Sums so far."""
        return {"names": list(self._names), "sums": list(self._sums), "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Continue from `state`."""
        self._names, self._count = list(state["names"]), state["count"]
        self._sums = [value.to(device) for value in state["sums"]]
