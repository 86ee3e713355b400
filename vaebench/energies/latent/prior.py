"""The model's prior as a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.distributions import Distribution

from vaebench.energies.base import ExactEnergy
from vaebench.energies.target import Split, Target


@dataclass(frozen=True)
class PriorTarget(Target):
    """The prior p(z) of the model: for checks of a sampler, since it can be drawn from directly."""

    needs: ClassVar[frozenset[str]] = frozenset({"prior"})

    def build(self, model: Any = None, split: Split | None = None) -> PriorEnergy:
        """Build the energy; no data is needed."""
        return PriorEnergy(self.require(model).prior())


class PriorEnergy(ExactEnergy):
    """U(z) = -log p(z), normalised.

    Args:
        prior: A distribution without batch dimensions over vectors.
    """

    def __init__(self, prior: Distribution) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, x: Tensor) -> Tensor:
        """U in nats, shape (B,)."""
        return -self.prior.log_prob(x)

    def exact_sample(self, num_samples: int) -> Tensor:
        """Draw from the prior, shape (N, D)."""
        return self.prior.sample((num_samples,)).detach()

    def start(self, num_chains: int) -> Tensor:
        """Draw from the prior itself, shape (S, D)."""
        return self.exact_sample(num_chains)
