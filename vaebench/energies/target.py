"""What an MCMC sampler draws from: a description that a trained model turns into an energy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from vaebench.core import Split
from vaebench.energies.base import BaseEnergyFunction


class Target(ABC):
    """A density over the latent space of a trained model.

    `needs` names the capabilities that a model must have.
    """

    needs: ClassVar[frozenset[str]]

    def why_not(self, model: Any) -> str | None:
        """Say in one sentence why this target does not exist for `model`, or None where it does."""
        return why_not(f"target={self.name}", self.needs, model)

    @property
    def name(self) -> str:
        """The name in the configuration, which is the module's."""
        return type(self).__module__.rsplit(".", 1)[-1]

    @abstractmethod
    def energy(self, model: Any, split: Split | None) -> BaseEnergyFunction:
        """Build the energy.

        Args:
            model: A trained model, in eval mode.
            split: The training split; None where it is not at hand.
        """


def why_not(name: str, needs: frozenset[str], model: Any) -> str | None:
    """Say which capability `model` lacks and why, in one sentence, or None where it lacks none."""
    missing = sorted(needs - model.capabilities)
    if not missing:
        return None
    reason = model.reason_against(missing[0])
    return f"{name} does not serve {type(model).__name__}: it needs the capability '{missing[0]}', but {reason}"
