"""Trainers: one loop, and the update rules on it."""

from vaebench.trainers.adversarial import AdversarialTrainer
from vaebench.trainers.base import BaseTrainer
from vaebench.trainers.contrastive_divergence import ContrastiveDivergenceTrainer
from vaebench.trainers.coupled import CoupledOptimizerTrainer
from vaebench.trainers.coupled_adversarial import CoupledOptimizerAdversarialTrainer

__all__ = [
    "AdversarialTrainer",
    "BaseTrainer",
    "ContrastiveDivergenceTrainer",
    "CoupledOptimizerAdversarialTrainer",
    "CoupledOptimizerTrainer",
]
