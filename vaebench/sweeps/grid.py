"""Every combination of comma-separated values."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vaebench.sweeps.base import BaseSweep, fixed_word

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


class GridSweep(BaseSweep):
    """Every combination of the values of `key=a,b`, `choice(…)`, `range(…)` and `glob(…)`; the last key varies fastest.

    Args: those of `BaseSweep`.
    """

    def jobs(self, overrides: Sequence[Override]) -> list[list[str]]:
        """Return the product of all values, in the order of the words."""
        axes: dict[str, list[str]] = {}
        for override in overrides:
            key = override.get_key_element()
            if not override.is_sweep_override():
                axes[key] = [fixed_word(override)]
                continue
            if not override.is_discrete_sweep():
                raise ValueError(
                    f"'{override.input_line}' has no finite number of values; choose sweep=random or optuna"
                )
            values = list(override.sweep_string_iterator())
            if not values:
                raise ValueError(f"'{override.input_line}' matches nothing, so there would be no job")
            axes[key] = [f"{key}={value}" for value in values]
        return [list(combination) for combination in itertools.product(*axes.values())]
