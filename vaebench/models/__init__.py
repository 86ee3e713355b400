"""Models: one paper, one file. `vaebench.models.BetaVAE` is the class of that name, imported when it is first used."""

from vaebench.lazy import lazy_classes

__getattr__, __dir__ = lazy_classes(__name__)
