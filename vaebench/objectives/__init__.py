"""Pure functions of distributions and log-weights, the contrast of energies, and the geometry that objectives share."""

from vaebench.lazy import lazy_classes

__getattr__, __dir__ = lazy_classes(__name__)
