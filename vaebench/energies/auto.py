"""The target that suits the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from vaebench.energies.aggregate_posterior import AggregatePosterior
from vaebench.energies.base import Energy
from vaebench.energies.manifold import Manifold
from vaebench.energies.prior import Prior
from vaebench.energies.target import Split, Target


@dataclass(frozen=True)
class Auto(Target):
    """The first that the model has: its metric's volume, its aggregate posterior, its prior."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def resolve(self, model: Any) -> Target | None:
        """Choose the target, or None where the model has none."""
        return next((t for t in (Manifold(), AggregatePosterior(), Prior()) if t.why_not(model) is None), None)

    def why_not(self, model: Any) -> str | None:
        """Say why no target exists for `model`, or None where one does."""
        return None if self.resolve(model) is not None else AggregatePosterior().why_not(model)

    def energy(self, model: Any, split: Split | None) -> Energy:
        """Build the energy of the chosen target."""
        target = self.resolve(model)
        if target is None:
            raise ValueError(self.why_not(model))
        return target.energy(model, split)
