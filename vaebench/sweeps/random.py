"""Random search."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vaebench.messages import check_range
from vaebench.sweeps.base import BaseSweep, fixed_word
from vaebench.sweeps.space import Axis, axis, word

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


class RandomSweep(BaseSweep):
    """Jobs with independent random values: of `interval(a,b)`, `tag(log,interval(a,b))`, `choice(…)`, `range(…)`.

    References:
        Random Search for Hyper-Parameter Optimization (Bergstra and Bengio, 2012),
        https://jmlr.org/papers/v13/bergstra12a.html
    Args: those of `BaseSweep`, and
        num_jobs: How many, >= 1; 64 is the largest number of trials in the paper's experiments on neural networks
            with which it compares to grids.
        seed: Of the draws; the first n jobs do not depend on how many there are.
    """

    def __init__(
        self, num_jobs: int = 64, seed: int = 0, wait: bool = True, dry_run: bool = False, confirm_above: int = 100
    ) -> None:
        super().__init__(wait, dry_run, confirm_above)
        check_range("num_jobs", num_jobs, at_least=1, whole=True)
        self.num_jobs = num_jobs
        self.seed = seed

    def jobs(self, overrides: Sequence[Override]) -> list[list[str]]:
        """Return `num_jobs` jobs."""
        generator = random.Random(self.seed)
        axes = [axis(override) if override.is_sweep_override() else fixed_word(override) for override in overrides]
        if not any(isinstance(entry, Axis) for entry in axes):
            raise ValueError("sweep=random: no key has several values; give some, such as seed=choice(0,1,2)")
        return [
            [entry if isinstance(entry, str) else word(entry, _draw(entry, generator)) for entry in axes]
            for _ in range(self.num_jobs)
        ]


def _draw(space: Axis, generator: random.Random) -> str | float:
    if space.choices is not None:
        return generator.choice(space.choices)
    if space.is_log:
        value = math.exp(generator.uniform(math.log(space.low), math.log(space.high)))
    else:
        value = generator.uniform(space.low, space.high + space.is_whole)
    if space.is_whole:
        return min(int(space.high), round(value) if space.is_log else math.floor(value))
    return value
