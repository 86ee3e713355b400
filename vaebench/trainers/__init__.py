"""Trainers: one loop, and the update rules on it."""

from vaebench.trainers.base import BaseTrainer

__all__ = ["BaseTrainer"]
