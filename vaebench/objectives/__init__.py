"""Pure functions of distributions and log-weights, and the geometry that objectives share."""

from vaebench.objectives.gram_loss import GramLoss

__all__ = ["GramLoss"]
