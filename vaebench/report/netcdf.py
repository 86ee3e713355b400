"""Draws of Markov chains in the format of ArviZ, where that is installed."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def is_available() -> bool:
    """Whether ArviZ is installed."""
    return find_spec("arviz") is not None


def write(path: Path, draws: np.ndarray, statistics: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
    """Write a NetCDF file that `arviz.from_netcdf` reads, with the groups posterior and sample_stats.

    Args:
        path: The file.
        draws: Shape (S, T, D), the variable x.
        statistics: By ArviZ's names, each of shape (S, T).
        attributes: Texts and numbers about the posterior.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ warns of its next version
        logging.getLogger("arviz").setLevel(logging.WARNING)
        import arviz

        groups = {"posterior": {"x": draws}, "sample_stats": dict(statistics)}
        has_groups = hasattr(arviz, "InferenceData")  # ArviZ before version 1
        from_dict: Any = arviz.from_dict
        data = from_dict(**groups) if has_groups else from_dict(groups)
        posterior = data.posterior if has_groups else data["posterior"]
        posterior.attrs.update(attributes)
        data.to_netcdf(str(path))
