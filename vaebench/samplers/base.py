"""What every sampler is: `fit` on a trained model, then `sample`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor
from typing_extensions import Self

from vaebench.energies.target import Split, why_not
from vaebench.mcmc.chains import ProgressFunction
from vaebench.mcmc.diagnostics import Diagnostics


class BaseSampler(ABC):
    """Draws latents; decoding, grids and files are the command's.

    Attributes:
        needs: Capabilities that a model must have.
        report: How well Markov chains converged, after `sample`; None for samplers without chains.
    """

    needs: frozenset[str]
    report: Diagnostics | None = None

    def why_not(self, model: Any) -> str | None:
        """Say in one sentence why this sampler does not serve `model`, or None where it does."""
        return why_not(f"sampler={self.name}", self.needs, model)

    @property
    def name(self) -> str:
        """The name in the configuration, which is the module's."""
        return type(self).__module__.rsplit(".", 1)[-1]

    @abstractmethod
    def fit(self, model: Any, split: Split | None = None) -> Self:
        """Prepare for a trained model in eval mode.

        Args:
            model: The model.
            split: Its training split, where the method learns from data.

        Raises:
            ValueError: if the sampler does not serve the model.
        """

    @abstractmethod
    def sample(self, num_samples: int, progress: ProgressFunction | None = None) -> Tensor:
        """Draw latents with torch's global generator, shape (N, D), on the model's device and in its dtype."""

    def diagnostics(self) -> dict[str, Any] | None:
        """The report in plain values, or None where there are no chains."""
        return None if self.report is None else self.report.as_dict()

    def check(self, model: Any) -> None:
        """Refuse a model that this sampler does not serve."""
        reason = self.why_not(model)
        if reason is not None:
            raise ValueError(reason)


def at_least(key: str, value: float, minimum: float) -> None:
    """Refuse a setting below its minimum."""
    if not value >= minimum:
        raise ValueError(f"expected {key} >= {minimum}, got {value}")


def within(key: str, value: float | None, low: float, high: float) -> None:
    """Refuse a setting outside the open interval (low, high); None passes."""
    if value is not None and not low < value < high:
        raise ValueError(f"expected {key} between {low} and {high}, got {value}")
