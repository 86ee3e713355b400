"""Samplers: ways to draw latents from a trained model, or points from an energy."""

from vaebench.lazy import lazy_classes

__getattr__, __dir__ = lazy_classes(__name__)
