"""The target that suits the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from vaebench.energies.base import BaseEnergyFunction
from vaebench.energies.latent.aggregate_posterior import AggregatePosteriorTarget
from vaebench.energies.latent.learned import LearnedTarget
from vaebench.energies.latent.manifold import ManifoldTarget
from vaebench.energies.latent.prior import PriorTarget
from vaebench.energies.target import Split, Target


@dataclass(frozen=True)
class AutoTarget(Target):
    """The first that the model has: its energy, its metric's volume, its aggregate posterior, its prior."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def resolve(self, model: Any) -> Target | None:
        """Choose the target, or None where the model has none."""
        targets = (LearnedTarget(), ManifoldTarget(), AggregatePosteriorTarget(), PriorTarget())
        return next((target for target in targets if target.why_not(model) is None), None)

    def why_not(self, model: Any) -> str | None:
        """Say why no target exists for `model`, or None where one does."""
        return None if self.resolve(model) is not None else AggregatePosteriorTarget().why_not(model)

    def build(self, model: Any = None, split: Split | None = None) -> BaseEnergyFunction:
        """Build the energy of the chosen target."""
        target = self.resolve(self.require(model))
        if target is None:
            raise ValueError(self.why_not(model))
        return target.build(model, split)
