"""Energies: unnormalised log-densities that samplers draw from."""

from vaebench.lazy import lazy_classes

__getattr__, __dir__ = lazy_classes(__name__)
