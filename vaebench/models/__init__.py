"""Models: one paper, one file. `vaebench.models.BetaVAE` is the class of that name in the module `beta_vae`."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any


def __getattr__(name: str) -> Any:
    """Import a model by the name of its class, and nothing else."""
    for module in pkgutil.iter_modules(__path__):
        if module.name.replace("_", "") == name.lower():
            found = getattr(importlib.import_module(f"{__name__}.{module.name}"), name, None)
            if found is not None:
                return found
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
