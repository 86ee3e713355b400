"""The target of an MCMC sampler: a description that a trained model turns into an energy, or an energy itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from vaebench.core import Split
from vaebench.messages import NamedArguments

if TYPE_CHECKING:
    from vaebench.energies.base import BaseEnergyFunction

AGAINST = {
    "codes": "it describes vectors, and this model's latents are codes of a finite set; choose sampler=pixelcnn",
    "groups": (
        "it needs one Gaussian for each example, and a hierarchy has a posterior of each group given those above; "
        "choose target=prior, or sampler=gaussian_mixture"
    ),
}
"""For each capability that some exclude, the reason."""


class Target(NamedArguments, ABC):
    """A density to draw from.

    Attributes:
        needs_model: Whether `build` needs a trained model.
        needs: Capabilities that this model must have.
        excludes: Capabilities that it must not have.
    """

    needs_model: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset()
    excludes: ClassVar[frozenset[str]] = frozenset()

    def why_not(self, model: Any) -> str | None:
        """Say in one sentence why this target does not exist for `model`, or None where it does."""
        return why_not(f"target={self.name}", self.needs, model, self.excludes)

    @property
    def name(self) -> str:
        """The name in the configuration, which is the module's."""
        return type(self).__module__.rsplit(".", 1)[-1]

    @abstractmethod
    def build(self, model: Any = None, split: Split | None = None) -> BaseEnergyFunction:
        """Build the energy.

        Args:
            model: A trained model, in eval mode; None where `needs_model` is false.
            split: The training split; None if it is not available.

        Raises:
            ValueError: if the model or the split is missing, or does not suit.
        """

    def require(self, model: Any) -> Any:
        """Return the model.

        Raises:
            ValueError: if there is none, or it lacks a capability.
        """
        if model is None:
            raise ValueError(f"target={self.name} is built from a trained model, got none; call setup(model)")
        reason = self.why_not(model)
        if reason is not None:
            raise ValueError(reason)
        return model


def why_not(name: str, needs: frozenset[str], model: Any, excludes: frozenset[str] = frozenset()) -> str | None:
    """Say which capability `model` lacks, or has and must not have, in one sentence, or None where it suits."""
    missing = sorted(needs - model.capabilities)
    if missing:
        reason = model.reason_against(missing[0])
        return f"{name} does not serve {type(model).__name__}: it needs the capability '{missing[0]}', but {reason}"
    unwanted = sorted(excludes & model.capabilities)
    return f"{name} does not serve {type(model).__name__}: {AGAINST[unwanted[0]]}" if unwanted else None
