"""The energy that a model has learned as a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from vaebench.energies.base import BaseEnergyFunction
from vaebench.energies.target import Split, Target


@dataclass(frozen=True)
class LearnedTarget(Target):
    """The density of examples that an energy-based model has learned, in standardised coordinates."""

    needs: ClassVar[frozenset[str]] = frozenset({"energy"})

    def build(self, model: Any = None, split: Split | None = None) -> BaseEnergyFunction:
        """Return the model's energy; no data is needed."""
        energy: BaseEnergyFunction = self.require(model).energy_function
        return energy
